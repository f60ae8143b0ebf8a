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

// Rules are an app's constraints, ready to be asked often.
type Rules []Rule

// Rule is one constraint. Its meaning is Marathon's (Constraints.scala), but GROUP_BY without a value, which spreads evenly over the
// values seen so far.
type Rule struct {
	state.Constraint
	op string
	re *regexp.Regexp // of LIKE and UNLIKE; nil when the value is no regular expression
	n  int            // of MAX_PER and GROUP_BY; 0 when there is none
}

// NewRules prepares constraints.
func NewRules(cs []state.Constraint) Rules {
	rules := make(Rules, len(cs))
	for i, c := range cs {
		r := Rule{Constraint: c, op: strings.ToUpper(c.Operator)}
		switch r.op {
		case "LIKE", "UNLIKE":
			if re, err := regexp.Compile("^(?:" + c.Value + ")$"); err == nil {
				r.re = re
			}
		case "MAX_PER", "GROUP_BY":
			if n, err := strconv.Atoi(c.Value); err == nil {
				r.n = n
			}
		}
		rules[i] = r
	}
	return rules
}

// Static tells whether the rule looks at the site alone, not at where other instances are.
func (r *Rule) Static() bool {
	switch r.op {
	case "IS", "LIKE", "UNLIKE":
		return true
	case "CLUSTER":
		return r.Value != ""
	}
	return false
}

// Allows tells whether one more instance may go to the site. instances is how many the app wants.
func (r *Rule) Allows(site *Site, t Tally, instances int) bool {
	v, has := site.Field(r.Field)
	if !has {
		return r.op == "UNLIKE"
	}
	counts := t[r.Field]
	switch r.op {
	case "UNIQUE":
		return counts[v] == 0
	case "CLUSTER":
		if r.Value != "" {
			return v == r.Value
		}
		for other, n := range counts {
			if n > 0 && other != v {
				return false
			}
		}
		return true
	case "IS":
		return isEqual(r.Value, v)
	case "LIKE", "UNLIKE":
		return r.re != nil && r.re.MatchString(v) == (r.op == "LIKE")
	case "MAX_PER":
		return counts[v] < r.n
	case "GROUP_BY":
		return r.groupBy(v, counts, instances)
	}
	return false
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
func (r *Rule) groupBy(v string, counts map[string]int, instances int) bool {
	groups, smallest := groupsOf(counts)
	if r.n <= 0 {
		return counts[v] == 0 || counts[v] <= smallest
	}
	if counts[v] == 0 {
		return groups < r.n
	}
	// An even share; the first ones to grow take what does not divide.
	quota, rest, over := instances/r.n, instances%r.n, 0
	for other, m := range counts {
		if other != v && m > quota {
			over++
		}
	}
	return counts[v] < quota || (counts[v] == quota && over < rest)
}

func groupsOf(counts map[string]int) (groups, smallest int) {
	smallest = math.MaxInt
	for _, n := range counts {
		if n > 0 {
			groups++
			smallest = min(smallest, n)
		}
	}
	return groups, smallest
}

// Refusal says why Allows said no.
func (r *Rule) Refusal(site *Site, t Tally, instances int) string {
	rule := "constraint " + r.Field + ":" + r.op
	if r.Value != "" {
		rule += ":" + r.Value
	}
	v, has := site.Field(r.Field)
	if !has {
		return fmt.Sprintf("%s: the agent has no %s", rule, r.Field)
	}
	counts := t[r.Field]
	why := fmt.Sprintf("the agent has %q", v)
	switch r.op {
	case "UNIQUE":
		why = fmt.Sprintf("an instance is on %q already", v)
	case "CLUSTER":
		if r.Value == "" {
			why = fmt.Sprintf("the other instances are not on %q", v)
		}
	case "LIKE", "UNLIKE":
		if r.re == nil {
			why = "the value is not a regular expression"
		}
	case "MAX_PER":
		why = fmt.Sprintf("%d instances are on %q already", counts[v], v)
	case "GROUP_BY":
		groups, smallest := groupsOf(counts)
		switch {
		case r.n <= 0:
			why = fmt.Sprintf("%d instances are on %q, %d on the smallest group", counts[v], v, smallest)
		case counts[v] == 0:
			why = fmt.Sprintf("there are %d groups already, and %q is not one of them", groups, v)
		default:
			why = fmt.Sprintf("%d of %d instances are on %q, which is its share", counts[v], instances, v)
		}
	case "IS":
	default:
		why = "the operator is not known"
	}
	return rule + ": " + why
}
