package definition

import (
	"bytes"

	"github.com/holdfast-io/holdfast/framework/marathon/document"
)

// Live is what an answer of the API says of an app besides its definition.
type Live struct {
	Instances int
	Version   string
	// LastScalingAt and LastConfigChangeAt make versionInfo; "" leaves it out.
	LastScalingAt, LastConfigChangeAt string
	// Extra are further members of the object, printed: `"tasksStaged":0,…`. Empty for none.
	Extra []byte
}

// Print gives a stored definition (what JSON printed) with what is live about it. It does not parse: a list of thousands of
// apps costs a copy each.
func Print(source []byte, l Live) []byte {
	var b bytes.Buffer
	b.Grow(len(source) + len(l.Extra) + 256)
	from, to := member(source, "instances")
	if to > from {
		b.Write(source[:from])
		b.Write(document.Marshal(l.Instances))
		source = source[to:]
	}
	kill, _ := member(source, "killSelection")
	if cut := kill - len(`"killSelection":`); kill > 0 && cut > 0 {
		b.Write(source[:cut])
		versions(&b, l)
		b.WriteByte(',')
		b.Write(source[cut : len(source)-1])
	} else {
		b.Write(bytes.TrimSuffix(source, []byte("}")))
		b.WriteByte(',')
		versions(&b, l)
	}
	if len(l.Extra) > 0 {
		b.WriteByte(',')
		b.Write(l.Extra)
	}
	b.WriteByte('}')
	return b.Bytes()
}

func versions(b *bytes.Buffer, l Live) {
	b.WriteString(`"version":`)
	b.Write(document.Quote(l.Version))
	if l.LastScalingAt != "" {
		b.WriteString(`,"versionInfo":`)
		o := &object{}
		o.put("lastScalingAt", l.LastScalingAt)
		o.put("lastConfigChangeAt", l.LastConfigChangeAt)
		b.Write(o.end())
	}
}

// member finds the value of a member of the outermost object, or of what is left of it, in compact JSON.
func member(json []byte, name string) (from, to int) {
	want := append(document.Quote(name), ':')
	depth, quoted := 0, false
	if len(json) > 0 && json[0] != '{' {
		depth = 1
	}
	for i := 0; i < len(json); i++ {
		switch c := json[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			if !quoted && depth == 1 && from == 0 && bytes.HasPrefix(json[i:], want) {
				from = i + len(want)
			}
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth == 0 && from > 0 {
				return from, i
			}
		case c == ',' && depth == 1 && from > 0 && i >= from:
			return from, i
		}
	}
	return 0, 0
}
