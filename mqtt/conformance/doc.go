// Package conformance holds a broker to the standard, requirement by requirement.
//
// It promises to know nothing of the broker but its address: what a test expects is what MQTT demands, and any broker
// that keeps to it passes. By default that is CairnMQ, opened for each test on an empty directory with a socket of its
// own. MQTT_BROKER names another one, as a command that is started for each test:
//
//	MQTT_BROKER='mosquitto -p {port}' go test ./mqtt/conformance
//
// Where the standard leaves a choice, tests take either, or say in their name that the choice is ours; those do not
// run against others. What needs the clock to be moved, a kill or a full disk is tested in mqtt/broker.
//
// The folder spec has the program that makes the matrix of requirements, lines and tests.
package conformance
