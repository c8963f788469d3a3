// Package wire encodes and decodes the MQTT 3.1.1 and 5 packets a load
// generator and the torture program need: CONNECT, SUBSCRIBE, UNSUBSCRIBE,
// PUBLISH, the four acknowledgements and DISCONNECT to send; CONNACK, SUBACK,
// UNSUBACK, PUBLISH and the acknowledgements to receive.
//
// It works on byte slices and allocates nothing while decoding: the topic and
// payload of a decoded packet point into the bytes it was decoded from, and
// are valid only as long as these are.
package wire
