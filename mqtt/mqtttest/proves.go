package mqtttest

import (
	"regexp"
	"testing"
)

// Requirement is how a requirement of the standard is cited: MQTT-x.y.z-n is MQTT 5, MQTT311-x.y.z-n is MQTT 3.1.1.
var Requirement = regexp.MustCompile(`MQTT(?:311)?-\d+\.\d+\.\d+-\d+`)

// Proves says that the test holds the broker to the requirements that the texts name: if it passes, they are kept. It
// goes into the output of the test as an attribute, where make spec finds it. The numbers stand in the test function
// as literals, in the call or in the rows of its table: make spec holds the one against the other.
func Proves(t testing.TB, texts ...string) {
	t.Helper()
	n := 0
	for _, text := range texts {
		for _, number := range Requirement.FindAllString(text, -1) {
			t.Attr("proves", number)
			n++
		}
	}
	if n == 0 {
		t.Fatalf("no requirement is named in %q", texts)
	}
}
