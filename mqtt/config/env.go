package config

import (
	"slices"
	"strings"
)

const envPrefix = "CAIRNMQ_"

// foreign reports variables that carry the prefix and are not settings: the command's own, and those which
// Kubernetes sets in every container beside a service that is called cairnmq.
func foreign(variable string) bool {
	return variable == "CAIRNMQ_CONFIG" ||
		variable == "CAIRNMQ_PORT" || strings.HasPrefix(variable, "CAIRNMQ_PORT_") ||
		strings.HasPrefix(variable, "CAIRNMQ_SERVICE_")
}

// envName is the variable of a key: "log.components" and "broker" make CAIRNMQ_LOG_COMPONENTS_BROKER.
func envName(parts ...string) string {
	name := strings.ToUpper(strings.Join(parts, "_"))
	return envPrefix + strings.NewReplacer(".", "_", "-", "_").Replace(name)
}

// readEnv lays the environment over c. A variable with an empty value counts as not set. Of a variable that is
// there twice the last counts, as it does for a process.
func readEnv(env []string, c *Config, r *report) {
	values := make(map[string]string)
	for _, entry := range env {
		if variable, value, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(variable, envPrefix) {
			values[variable] = value
		}
	}
	variables := make([]string, 0, len(values))
	for variable := range values {
		if !foreign(variable) {
			variables = append(variables, variable)
		}
	}
	slices.Sort(variables)

	for _, variable := range variables {
		t, ok := findTarget(variable, c)
		if !ok {
			r.problems = append(r.problems, Problem{File: Environment, Key: variable, Msg: unknownVariable(variable, c)})
			continue
		}
		if values[variable] == "" {
			continue
		}
		element := t.element(c)
		full := t.elementName + "." + t.key.name
		// The file's value no longer matters, and neither does a complaint about its type: but it stays reported,
		// because it would come back the day the variable goes.
		r.origins[full] = origin{file: Environment, key: variable}
		delete(r.broken, full)
		if err := setFromText(t.key.field(element), values[variable]); err != nil {
			r.add(full, "%v", err)
		}
	}
}

// target is the key that a variable stands for.
type target struct {
	section     *section
	key         *key
	elementName string
	server      string // for a key of a server
}

func findTarget(variable string, c *Config) (target, bool) {
	for i := range sections {
		s := &sections[i]
		for j := range s.keys {
			k := &s.keys[j]
			switch s.form {
			case table:
				if envName(s.name, k.name) == variable {
					return target{section: s, key: k, elementName: s.name}, true
				}
			case named, part:
				start, end := envName("servers")+"_", "_"+strings.ToUpper(k.name)
				if s.form == part {
					end = "_" + strings.ToUpper(s.partName()) + end
				}
				if len(variable) > len(start)+len(end) &&
					strings.HasPrefix(variable, start) && strings.HasSuffix(variable, end) {
					server := serverOf(variable[len(start):len(variable)-len(end)], c)
					return target{section: s, key: k, elementName: s.elementName(0, &Server{Name: server}), server: server}, true
				}
			}
		}
	}
	return target{}, false
}

// serverOf returns the server whose name looks like this in capitals, which for one that the file does not have is
// the name in small letters.
func serverOf(capitals string, c *Config) string {
	for _, s := range c.Servers {
		if envName(s.Name) == envPrefix+capitals {
			return s.Name
		}
	}
	return strings.ToLower(capitals)
}

// element returns the struct to set the key in; a server that is not there yet is added.
func (t target) element(c *Config) any {
	if t.section.form == table {
		return t.section.elements(c)[0]
	}
	for i := range c.Servers {
		if c.Servers[i].Name == t.server {
			return &c.Servers[i]
		}
	}
	return sectionNamed("servers").add(c, t.server)
}

func unknownVariable(variable string, c *Config) string {
	var known []string
	for _, s := range sections {
		if s.form == list && strings.HasPrefix(variable, envName(s.name)) {
			return s.title() + " can be set in the file only"
		}
		for _, k := range s.keys {
			switch s.form {
			case table:
				known = append(known, envName(s.name, k.name))
			case named, part:
				for _, server := range c.Servers {
					known = append(known, envName(s.elementName(0, &server), k.name))
				}
			}
		}
	}
	// The prefix is right, so only the rest should count for the distance.
	for i := range known {
		known[i] = strings.TrimPrefix(known[i], envPrefix)
	}
	hint := didYouMean(strings.TrimPrefix(variable, envPrefix), known)
	return "unknown variable" + strings.Replace(hint, "mean ", "mean "+envPrefix, 1)
}
