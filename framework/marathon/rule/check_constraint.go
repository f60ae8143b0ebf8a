package rule

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/framework/marathon/document"
)

var isValue = regexp.MustCompile(`^[a-zA-Z0-9_/.-]*$`)

// checkConstraints holds the rules on [field, operator(, value)].
func checkConstraints(p *document.Problems, path string, constraints [][]string) {
	for i, c := range constraints {
		if text := constraintFault(c); text != "" {
			p.Add(fmt.Sprintf("%s(%d)", path, i), text)
		}
	}
}

func constraintFault(c []string) string {
	if len(c) < 2 || len(c) > 3 {
		return "Each constraint must have either 2 or 3 fields"
	}
	if c[0] == "" {
		return "illegal constraint specification"
	}
	given := len(c) == 3
	arg := ""
	if given {
		arg = c[2]
	}
	switch strings.ToUpper(c[1]) {
	case "UNIQUE":
		if given {
			return "UNIQUE does not accept a value"
		}
	case "CLUSTER":
	case "GROUP_BY":
		if given && !integer(arg) {
			return "GROUP BY must define an integer value or else no value at all"
		}
	case "MAX_PER":
		if !integer(arg) {
			return "MAX_PER requires an integer value"
		}
	case "LIKE", "UNLIKE":
		if !given {
			return "LIKE and UNLIKE require a non-empty, regular expression value"
		}
		if _, err := regexp.Compile(arg); err != nil {
			return "is not a valid regular expression"
		}
	case "IS":
		if !isValue.MatchString(arg) {
			return "IS only supports Mesos text and float values (see http://mesos.apache.org/documentation/latest/attributes-resources/)"
		}
	default:
		return "operator must be one of the following UNIQUE, CLUSTER, GROUP_BY, LIKE, MAX_PER, UNLIKE or IS"
	}
	return ""
}

func integer(s string) bool {
	_, err := strconv.ParseInt(s, 10, 32)
	return err == nil
}
