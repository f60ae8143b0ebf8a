// Package selector reads the label selectors of GET /v2/apps?label=….
package selector

import (
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Parse reads Marathon's selectors: `name`, `name==v`, `name!=v`, `name in (a,b)`, `name notin (a,b)`, joined by commas that mean
// "and". Characters other than letters, digits, '-', '_' and '.' are escaped by a backslash. "" matches everything; what cannot be read is fault.Invalid.
func Parse(text string) (func(labels map[string]string) bool, error) {
	p := &parser{rest: strings.TrimSpace(text)}
	var all []func(map[string]string) bool
	for p.rest != "" {
		one, reason := p.term()
		if reason != "" {
			return nil, fault.New(fault.Invalid, "Can not parse label selector %s. Reason: %s", text, reason)
		}
		all = append(all, one)
		p.space()
		if p.rest == "" {
			break
		}
		if !p.take(",") {
			return nil, fault.New(fault.Invalid, "Can not parse label selector %s. Reason: ',' expected at %q", text, p.rest)
		}
		if p.space(); p.rest == "" {
			return nil, fault.New(fault.Invalid, "Can not parse label selector %s. Reason: a label name expected after ','", text)
		}
	}
	return func(labels map[string]string) bool {
		return !slices.ContainsFunc(all, func(one func(map[string]string) bool) bool { return !one(labels) })
	}, nil
}

type parser struct{ rest string }

func (p *parser) space() { p.rest = strings.TrimLeft(p.rest, " \t") }

func (p *parser) take(token string) bool {
	rest, ok := strings.CutPrefix(p.rest, token)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *parser) word() string {
	p.space()
	var b strings.Builder
	for i := 0; i < len(p.rest); i++ {
		c := p.rest[i]
		switch {
		case c == '\\' && i+1 < len(p.rest):
			i++
			b.WriteByte(p.rest[i])
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-_.", c) >= 0:
			b.WriteByte(c)
		default:
			p.rest = p.rest[i:]
			return b.String()
		}
	}
	p.rest = ""
	return b.String()
}

func (p *parser) term() (match func(map[string]string) bool, reason string) {
	name := p.word()
	if name == "" {
		return nil, "a label name expected"
	}
	p.space()
	switch {
	case p.take("=="):
		return p.equal(name, true)
	case p.take("!="):
		return p.equal(name, false)
	case p.take("in ") || p.take("in("):
		return p.set(name, true)
	case p.take("notin ") || p.take("notin("):
		return p.set(name, false)
	}
	return func(l map[string]string) bool { _, ok := l[name]; return ok }, ""
}

func (p *parser) equal(name string, want bool) (func(map[string]string) bool, string) {
	v := p.word()
	if v == "" {
		return nil, "a value expected for " + name
	}
	return func(l map[string]string) bool { got, ok := l[name]; return (ok && got == v) == want }, ""
}

func (p *parser) set(name string, want bool) (func(map[string]string) bool, string) {
	p.space()
	p.take("(")
	var values []string
	for {
		v := p.word()
		if v == "" {
			return nil, "a value expected in the set of " + name
		}
		values = append(values, v)
		p.space()
		if p.take(")") {
			break
		}
		if !p.take(",") {
			return nil, "')' expected after the set of " + name
		}
	}
	return func(l map[string]string) bool {
		got, ok := l[name]
		return (ok && slices.Contains(values, got)) == want
	}, ""
}
