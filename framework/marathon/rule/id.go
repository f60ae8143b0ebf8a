package rule

import (
	"regexp"
	"strings"

	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
)

// maxID leaves room in Mesos's 255 characters of a task id for ordinal, incarnation and suffix.
const maxID = 200

const segmentRule = `^(([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])|(\.|\.\.)$`

// SegmentError says that a part of an id is none.
const SegmentError = "must fully match regular expression '" + segmentRule + "'"

var segmentShape = regexp.MustCompile(`^(?:` + definition.Segment + `|\.|\.\.)$`)

// AbsoluteID gives an id as Marathon keeps it: absolute against the root, without empty, "." and ".." segments.
func AbsoluteID(id string) string {
	var parts []string
	for _, s := range strings.Split(id, "/") {
		switch s {
		case "", ".":
		case "..":
			if len(parts) > 0 {
				parts = parts[:len(parts)-1]
			}
		default:
			parts = append(parts, s)
		}
	}
	return "/" + strings.Join(parts, "/")
}

// ValidID tells whether an absolute id could be an app's.
func ValidID(id string) bool {
	p := &document.Problems{}
	checkID(p, id)
	return len(p.Details()) == 0
}

func checkID(p *document.Problems, id string) {
	id = AbsoluteID(id)
	if id == "/" {
		p.Add("/id", "Path must contain at least one path element")
		p.Add("/", "must not be root")
		return
	}
	if len(id) > maxID {
		p.Add("/id", "must not be longer than 200 characters")
	}
	parts := strings.Split(id[1:], "/")
	for _, s := range parts {
		if !segmentShape.MatchString(s) {
			p.Add("/id", SegmentError)
			break
		}
	}
	switch parts[len(parts)-1] {
	case "restart", "tasks", "versions":
		p.Add("/id", "must not end with any of the following reserved keywords: restart, tasks, versions, ., ..")
	}
}
