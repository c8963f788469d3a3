// Package filter decides whether a topic filter matches a topic name, by the
// rule of MQTT 3.1.1 and 5, section 4.7. It is the one place where that rule is
// written down; everything above and below the broker asks here.
//
// It promises to look at each byte of filter and topic a bounded number of
// times, to allocate nothing, and to compare what was sent byte by byte,
// without normalising it [MQTT-4.7.3-4], [MQTT311-4.7.3-4]. An empty level is a level: "a//b" has
// three, "/" has two.
//
// Match and Literal are defined for filters that Valid accepts. For others they
// return something, and do not panic.
package filter
