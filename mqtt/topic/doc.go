// Package topic knows topic names and topic filters: which are well-formed,
// which are shared, and, for many subscriptions at once, which match a name.
//
// It promises that what passes ValidateName, ValidateFilter and ParseShared
// obeys sections 4.7 and 4.8.2 of MQTT 5, which on these points include those
// of 3.1.1, and that a Trie reports exactly the subscriptions whose filters
// Match reports. The rule itself is in storage/filter, because storage needs it
// too.
//
// Nothing here copies or normalises what a client sent [MQTT-4.7.3-4].
// That strings are UTF-8 is the codec's to check.
package topic
