package place

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Site is where an instance is or could be, as constraints see it.
type Site struct {
	Hostname, Region, Zone string
	Attributes             map[string]string
}

// Field gives the value that a constraint's field has there; ok is false when there is none.
func (s *Site) Field(field string) (value string, ok bool) {
	switch field {
	case "hostname", "@hostname":
		return s.Hostname, true
	case "@region":
		return s.Region, s.Region != ""
	case "@zone":
		return s.Zone, s.Zone != ""
	}
	value, ok = s.Attributes[field]
	return value, ok
}

// Tally counts an app's instances by the values of the fields that its constraints name.
type Tally map[string]map[string]int

// Add counts n instances at a site.
func (t Tally) Add(cs []state.Constraint, site *Site, n int) {
	for _, c := range cs {
		if v, ok := site.Field(c.Field); ok {
			if t[c.Field] == nil {
				t[c.Field] = map[string]int{}
			}
			t[c.Field][v] += n
		}
	}
}

// Spreads tells whether a refusal by these constraints may end by another placement of the same app.
func Spreads(cs []state.Constraint) bool {
	for _, c := range cs {
		if c.Operator == "GROUP_BY" {
			return true
		}
	}
	return false
}

// Check tells whether one more instance may go to the site, and if not why. instances is how many the app wants. The rules are
// Marathon's (Constraints.scala), but GROUP_BY without a value, which spreads evenly over the values seen so far.
func Check(c state.Constraint, site *Site, t Tally, instances int) (ok bool, text string) {
	op := strings.ToUpper(c.Operator)
	rule := "constraint " + c.Field + ":" + op
	if c.Value != "" {
		rule += ":" + c.Value
	}
	v, has := site.Field(c.Field)
	if !has {
		return op == "UNLIKE", fmt.Sprintf("%s: the agent has no %s", rule, c.Field)
	}
	ok, why := check(op, c, v, t[c.Field], instances)
	if ok {
		return true, ""
	}
	return false, rule + ": " + why
}

func check(op string, c state.Constraint, v string, counts map[string]int, instances int) (bool, string) {
	switch op {
	case "UNIQUE":
		return counts[v] == 0, fmt.Sprintf("an instance is on %q already", v)
	case "CLUSTER":
		if c.Value != "" {
			return v == c.Value, fmt.Sprintf("the agent has %q", v)
		}
		for other, n := range counts {
			if n > 0 && other != v {
				return false, fmt.Sprintf("the other instances are not on %q", v)
			}
		}
		return true, ""
	case "IS":
		return isEqual(c.Value, v), fmt.Sprintf("the agent has %q", v)
	case "LIKE", "UNLIKE":
		re, err := regexp.Compile("^(?:" + c.Value + ")$")
		if err != nil {
			return false, "the value is not a regular expression"
		}
		return re.MatchString(v) == (op == "LIKE"), fmt.Sprintf("the agent has %q", v)
	case "MAX_PER":
		most, err := strconv.Atoi(c.Value)
		if err != nil {
			return false, "the value is not a number"
		}
		return counts[v] < most, fmt.Sprintf("%d instances are on %q already", counts[v], v)
	case "GROUP_BY":
		return groupBy(c, v, counts, instances)
	}
	return false, "the operator is not known"
}

// isEqual compares text, and numbers as Mesos prints scalars (three decimals at most).
func isEqual(want, v string) bool {
	if want == v {
		return true
	}
	a, errA := strconv.ParseFloat(want, 64)
	b, errB := strconv.ParseFloat(v, 64)
	return errA == nil && errB == nil && math.Round(a*1000) == math.Round(b*1000)
}

// groupBy: with a value n, at most n groups with an even share each; without, the smallest group seen, or a new one.
func groupBy(c state.Constraint, v string, counts map[string]int, instances int) (bool, string) {
	groups, smallest := 0, math.MaxInt
	for _, n := range counts {
		if n > 0 {
			groups++
			smallest = min(smallest, n)
		}
	}
	n, err := strconv.Atoi(c.Value)
	if err != nil || n <= 0 {
		if counts[v] == 0 || counts[v] <= smallest {
			return true, ""
		}
		return false, fmt.Sprintf("%d instances are on %q, %d on the smallest group", counts[v], v, smallest)
	}
	if counts[v] == 0 {
		return groups < n, fmt.Sprintf("there are %d groups already, and %q is not one of them", groups, v)
	}
	// An even share; the first ones to grow take what does not divide.
	quota, rest := instances/n, instances%n
	over := 0
	for other, m := range counts {
		if other != v && m > quota {
			over++
		}
	}
	if counts[v] < quota || (counts[v] == quota && over < rest) {
		return true, ""
	}
	return false, fmt.Sprintf("%d of %d instances are on %q, which is its share", counts[v], instances, v)
}
