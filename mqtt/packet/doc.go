// Package packet is the wire codec for MQTT 3.1, 3.1.1 and 5: functions from
// bytes to packets and back, without sockets, clock or logging.
//
// The decoder is strict. It accepts what the standard of the packet's version
// allows, byte for byte, and returns an [*Error] for everything else; the error
// is the reason code to answer with, and the number of the rule that was broken.
// Rules that need more than the packet itself (a filter's wildcards, a topic
// alias above the announced maximum, who sent which packet when) belong to the
// callers.
//
// Decoding never panics, and never allocates in proportion to a length that was
// only announced: a packet is decoded once all its bytes are there. Decoding and
// encoding PUBLISH and its acknowledgements allocate nothing, with one exception:
// acknowledgements that carry properties.
//
// A decoded [Publish] aliases its input and is good until the read buffer is
// used again. All other packets own their strings and slices.
//
// Encoders trust their caller with sizes. A string above 65,535 bytes or a packet
// above [MaxPacketSize] cannot be written at all; asking for it is a mistake in
// the program and panics. What came out of a decoder always fits, save that a
// [Delivery] can outgrow the PUBLISH it came from: ask [Delivery.Size] first.
//
// Reason strings cite the standards by number: [MQTT-x.y.z-n] is MQTT 5,
// [MQTT311-x.y.z-n] is MQTT 3.1.1.
package packet
