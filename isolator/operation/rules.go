package operation

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
)

// rule says what a kind of operation needs.
type rule struct {
	asks                     bool // it changes nothing: answered at once, not kept
	driver, name             bool
	snapshot                 bool
	size                     bool
	target, repository, from bool
	may                      []string // fields that may be given beside those
}

var rules = map[string]rule{
	client.OpSnapshot:       {driver: true, name: true, snapshot: true},
	client.OpRemoveSnapshot: {driver: true, name: true, snapshot: true},
	client.OpSnapshots:      {asks: true, driver: true, may: []string{"name"}},
	client.OpClone:          {driver: true, name: true, target: true, may: []string{"snapshot"}},
	client.OpResize:         {driver: true, name: true, size: true},
	client.OpUsage:          {asks: true, driver: true, name: true},
	client.OpCheck:          {driver: true, name: true, may: []string{"repair"}},
	client.OpBin:            {asks: true, may: []string{"driver"}},
	client.OpUndelete:       {driver: true, name: true, may: []string{"target"}},
	client.OpPurge:          {driver: true, name: true},
	client.OpBackup:         {driver: true, name: true, repository: true, may: []string{"snapshot", "verify"}},
	client.OpRestore:        {driver: true, target: true, repository: true, from: true, may: []string{"name", "verify"}},
	client.OpBackups:        {asks: true, may: []string{"driver", "name", "repository"}},
	client.OpRemoveBackup:   {repository: true, from: true},
}

// Kinds names all kinds, sorted.
func Kinds() []string {
	out := make([]string, 0, len(rules))
	for k := range rules {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Asks tells whether a kind only asks.
func Asks(kind string) bool { return rules[kind].asks }

// wordShape is that of snapshot, repository and backup names, which go into paths and command lines.
var wordShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

var idShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// CheckSnapshot says whether a snapshot may have that name. The error is Invalid.
func CheckSnapshot(name string) error { return word("snapshot", name) }

func word(what, value string) error {
	if !wordShape.MatchString(value) {
		return fault.New(fault.Invalid, "%s %q must be 1 to 128 letters, digits, '_', '.' and '-', the first a letter or digit", what, value)
	}
	return nil
}

// Check refuses a request that cannot be meant, naming the field.
func Check(r client.OperationRequest) error {
	rl, ok := rules[r.Kind]
	if !ok {
		return fault.New(fault.Invalid, "operation %q is not known; there are %s", r.Kind, strings.Join(Kinds(), ", "))
	}
	if err := needed(r, rl); err != nil {
		return fault.Op(err, "%s", r.Kind)
	}
	return fault.Op(shapes(r), "%s", r.Kind)
}

func needed(r client.OperationRequest, rl rule) error {
	for _, f := range []struct {
		field         string
		needed, given bool
	}{
		{"driver", rl.driver, r.Driver != ""}, {"name", rl.name, r.Name != ""}, {"snapshot", rl.snapshot, r.Snapshot != ""},
		{"sizeBytes", rl.size, r.SizeBytes != 0}, {"target", rl.target, r.Target != nil}, {"repository", rl.repository, r.Repository != ""},
		{"backup", rl.from, r.Backup != ""}, {"repair", false, r.Repair}, {"verify", false, r.Verify},
	} {
		switch {
		case f.needed && !f.given:
			return fault.New(fault.Invalid, "%s is missing", f.field)
		case f.given && !f.needed && !slices.Contains(rl.may, f.field):
			return fault.New(fault.Invalid, "%s does not belong to it", f.field)
		}
	}
	return nil
}

func shapes(r client.OperationRequest) error {
	if r.Driver != "" {
		if err := volume.CheckDriver(r.Driver); err != nil {
			return err
		}
	}
	for _, name := range append([]string{r.Name}, targetName(r.Target)...) {
		if name == "" {
			continue
		}
		if err := volume.CheckName(name); err != nil {
			return err
		}
	}
	for what, v := range map[string]string{"snapshot": r.Snapshot, "repository": r.Repository, "backup": r.Backup} {
		if v == "" {
			continue
		}
		if err := word(what, v); err != nil {
			return err
		}
	}
	for what, v := range map[string]string{"id": r.ID, "uid": r.UID} {
		if v != "" && !idShape.MatchString(v) {
			return fault.New(fault.Invalid, "%s %q must be 1 to 64 letters, digits, '_' and '-'", what, v)
		}
	}
	if r.SizeBytes < 0 {
		return fault.New(fault.Invalid, "sizeBytes %d is negative", r.SizeBytes)
	}
	return target(r)
}

func targetName(t *client.TargetVolume) []string {
	if t == nil {
		return nil
	}
	return []string{t.Name}
}

func target(r client.OperationRequest) error {
	t := r.Target
	switch {
	case t == nil:
		return nil
	case t.Name == "":
		return fault.New(fault.Invalid, "target: name is missing")
	case t.UID != "" && !idShape.MatchString(t.UID):
		return fault.New(fault.Invalid, "target: uid %q must be 1 to 64 letters, digits, '_' and '-'", t.UID)
	case t.SizeBytes < 0:
		return fault.New(fault.Invalid, "target: sizeBytes %d is negative", t.SizeBytes)
	case r.Kind == client.OpClone && t.Name == r.Name:
		return fault.New(fault.Invalid, "target: a clone needs a name of its own, not %q again", t.Name)
	case r.Kind == client.OpUndelete && t.Name != r.Name:
		return fault.New(fault.Invalid, "target: a volume comes back under its own name %q", r.Name)
	}
	return volume.CheckOptions(t.Options)
}

// key is the same for two requests of the same words: the second joins the first while that is under way.
func key(r client.OperationRequest) string {
	r.ID = ""
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Sprintf("%+v", r)
	}
	return string(raw)
}

// The levels of fullness in percent. A volume leaves a level three percent below where it came to it, so that one at the border does not flicker.
const (
	nearlyFull = 85
	veryFull   = 95
	slack      = 3
)

// Level of a volume: LevelNone, LevelNearly (85 %) or LevelFull (95 %), by the fuller of bytes and inodes.
type Level string

// The levels.
const (
	LevelNone   Level = ""
	LevelNearly Level = "nearly-full"
	LevelFull   Level = "full"
)

// LevelOf gives the level that a usage comes to, from the level before.
func LevelOf(before Level, u client.Usage) Level {
	p := Percent(u)
	at := func(border float64, been bool) bool { return p >= border || been && p > border-slack }
	switch {
	case at(veryFull, before == LevelFull):
		return LevelFull
	case at(nearlyFull, before != LevelNone):
		return LevelNearly
	}
	return LevelNone
}

// Percent is how full a volume is, by the fuller of bytes and inodes; 0 where nothing limits it.
func Percent(u client.Usage) float64 {
	p := 0.0
	// What a task can still write counts, not what the file system keeps for root.
	if total := u.UsedBytes + u.AvailableBytes; u.SizeBytes > 0 && total > 0 {
		p = 100 * float64(u.UsedBytes) / float64(total)
	}
	if u.Inodes > 0 {
		p = max(p, 100*float64(u.InodesUsed)/float64(u.Inodes))
	}
	return p
}
