package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

// nameRoom is the length of a label in DNS.
const nameRoom = 63

// valid makes a text usable as one label of a DNS name: lower case letters, digits and hyphens, at most 63, hyphens only inside.
// Different texts may give the same name; names takes care of that.
func valid(text string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, text)
	if name = strings.Trim(name, "-"); name == "" {
		name = "x"
	}
	if len(name) > nameRoom {
		return suffixed(name, text, 6)
	}
	return name
}

// suffixed puts a hash of text behind name, cutting name so that there is room.
func suffixed(name, text string, digits int) string {
	sum := sha256.Sum256([]byte(text))
	hash := hex.EncodeToString(sum[:])[:digits]
	name = strings.TrimRight(name[:min(len(name), nameRoom-1-digits)], "-")
	return name + "-" + hash
}

// source is where a name comes from. Two services share a name only when their sources are equal.
type source struct {
	// text is what is made valid.
	text string
	// owner tells apart sources of the same text: the app and port that a name was derived for, "" for one that a person gave, because
	// two apps with the same given name are meant to be one service.
	owner string
}

// exact says that a person asked for just this name, which then stays as it is.
func (s source) exact() bool { return s.owner == "" && s.text == valid(s.text) }

// hashed is what a suffix is made of.
func (s source) hashed() string { return s.owner + "\x00" + s.text }

// names gives every source a name of its own. A name that only one source leads to is plain. Where several do, the one that a person
// asked for exactly keeps it and the others get a hash of where they come from behind it: six digits, more should that collide as well.
// The answer depends on the set of sources alone, not on their order.
func names(sources map[source]bool) map[source]string {
	out := make(map[source]string, len(sources))
	users := make(map[string][]source, len(sources))
	for s := range sources {
		out[s] = valid(s.text)
		users[out[s]] = append(users[out[s]], s)
	}
	for _, digits := range []int{6, 12, 24, 48} {
		var clash []source
		for _, list := range users {
			if len(list) > 1 {
				clash = append(clash, slices.DeleteFunc(list, source.exact)...)
			}
		}
		if len(clash) == 0 {
			break
		}
		for _, s := range clash {
			out[s] = suffixed(valid(s.text), s.hashed(), digits)
		}
		clear(users)
		for s, name := range out {
			users[name] = append(users[name], s)
		}
	}
	return out
}
