package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// command is a command line that was understood.
type command struct {
	verb    string
	driver  string
	name    string
	options map[string]string
	// explicitCreate refuses to create at mount.
	explicitCreate bool
	timeout        time.Duration
	json           bool
	snapshot, size string
	owner          string // whose use an unmount ends; "" is Mesos's
	now            bool   // remove past the bin
}

var verbs = map[string]struct {
	what  string
	name  bool // needs --volumename
	opts  bool // takes --volumeopts
	limit time.Duration
	any   bool // --volumedriver only narrows it
}{
	"create":       {"Create a volume", true, true, 110 * time.Second, false},
	"remove":       {"Remove a volume", true, false, 110 * time.Second, false},
	"mount":        {"Mount a volume and print its path", true, true, 110 * time.Second, false}, // Mesos kills at 120 s; this way it gets a reason
	"unmount":      {"Unmount a volume", true, false, 9 * time.Minute, false},                   // Mesos kills at 10 min
	"path":         {"Print the path of a mounted volume", true, false, time.Minute, false},
	"get":          {"Print a volume's name if it exists", true, false, time.Minute, false},
	"list":         {"Print the names of all volumes", false, false, time.Minute, false},
	"capabilities": {"Print what a driver, or every driver of this node, can do", false, false, time.Minute, true},
	"status":       {"Print what is mounted on this node, by whom and since when", false, false, time.Minute, true},
	"version":      {"Print the version", false, false, time.Minute, true},

	"snapshot":        {"Snapshot a volume and print the snapshot's name", true, true, 10 * time.Minute, false},
	"snapshots":       {"List the snapshots of a volume, or of all", false, false, time.Minute, false},
	"remove-snapshot": {"Remove a snapshot", true, true, 10 * time.Minute, false},
	"resize":          {"Make a volume larger and print its size", true, true, 10 * time.Minute, false},
}

var verbOrder = []string{"create", "remove", "mount", "unmount", "path", "get", "list", "capabilities", "status", "snapshot", "snapshots", "remove-snapshot", "resize", "version"}

// errHelp asks for the usage.
type errHelp struct{ verb string }

func (errHelp) Error() string { return "help" }

// parse reads a command line: flags before or after the verb, `--flag value` or `--flag=value`. Where the old one was
// spelled in two ways both are taken, and an option's value may hold '=' and ','.
func parse(args []string) (command, error) {
	c := command{options: map[string]string{}}
	help := false
	for i := 0; i < len(args); i++ {
		a := args[i]
		if !strings.HasPrefix(a, "-") || a == "-" {
			if c.verb != "" {
				return c, fmt.Errorf("unexpected argument %q", a)
			}
			c.verb = a
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(a, "-"), "-"), "=")
		switch strings.ToLower(name) {
		case "help", "h":
			help = true
			continue
		case "explicitcreate":
			b, err := boolFlag(name, value, hasValue)
			if err != nil {
				return c, err
			}
			c.explicitCreate = b
			continue
		case "now":
			b, err := boolFlag(name, value, hasValue)
			if err != nil {
				return c, err
			}
			c.now = b
			continue
		case "o":
			name = "output"
		case "volumedriver", "volumename", "volumeopts", "timeout", "output", "owner", "snapshot", "size":
		default:
			return c, fmt.Errorf("unknown flag: %s", a)
		}
		if !hasValue {
			if i+1 >= len(args) {
				return c, fmt.Errorf("flag --%s needs a value", name)
			}
			i++
			value = args[i]
		}
		if err := c.set(strings.ToLower(name), value); err != nil {
			return c, err
		}
	}
	if help || c.verb == "" || c.verb == "help" {
		return c, errHelp{c.verb}
	}
	return c, c.check()
}

func boolFlag(name, value string, hasValue bool) (bool, error) {
	if !hasValue {
		return true, nil
	}
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("flag --%s: %q is neither true nor false", name, value)
	}
	return b, nil
}

func (c *command) set(flag, value string) error {
	switch flag {
	case "volumedriver":
		c.driver = value
	case "volumename":
		c.name = value
	case "timeout":
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return fmt.Errorf("flag --timeout: %q is not a duration such as 90s", value)
		}
		c.timeout = d
	case "output":
		if value != "text" && value != "json" {
			return fmt.Errorf("flag --output: %q is neither text nor json", value)
		}
		c.json = value == "json"
	case "owner":
		c.owner = value
	case "snapshot":
		c.snapshot = value
	case "size":
		c.size = value
	case "volumeopts":
		k, v, found := strings.Cut(value, "=")
		if !found || k == "" {
			return fmt.Errorf("flag --volumeopts: %q is not key=value", value)
		}
		if old, ok := c.options[k]; ok && old != v {
			return fmt.Errorf("flag --volumeopts: %s is given twice", k)
		}
		c.options[k] = v
	}
	return nil
}

// oldMissingDriver is in the old one's words, which scripts look for.
const oldMissingDriver = "Missing volume driver name"

func (c *command) check() error {
	v, ok := verbs[c.verb]
	switch {
	case !ok:
		return fmt.Errorf("unknown command %q for \"dvdcli\"", c.verb)
	case c.verb == "version":
		return nil
	case c.driver == "" && !v.any:
		return usageError(oldMissingDriver)
	case v.name && c.name == "":
		return fmt.Errorf("missing volume name: give --volumename")
	case c.owner != "" && c.verb != "unmount":
		return fmt.Errorf("%s takes no --owner", c.verb)
	case c.now && c.verb != "remove":
		return fmt.Errorf("%s takes no --now", c.verb)
	case c.snapshot != "" && c.verb != "snapshot" && c.verb != "remove-snapshot":
		return fmt.Errorf("%s takes no --snapshot", c.verb)
	case c.size != "" && c.verb != "resize":
		return fmt.Errorf("%s takes no --size", c.verb)
	case !v.opts && len(c.options) > 0:
		return fmt.Errorf("%s takes no --volumeopts", c.verb)
	}
	if c.timeout == 0 {
		c.timeout = v.limit
	}
	return nil
}

func usage() string {
	var b strings.Builder
	b.WriteString("dvdcli:\n  A Docker Volume Driver CLI\n\nUsage:\n  dvdcli [command] --volumedriver=DRIVER --volumename=NAME [flags]\n\nAvailable Commands:\n")
	for _, v := range verbOrder {
		fmt.Fprintf(&b, "  %-15s %s\n", v, verbs[v].what)
	}
	b.WriteString(`  help            Print this text

Flags:
      --volumedriver string   Volume driver
      --volumename string     Volume name
      --volumeopts key=value  Volume option for create and mount, may be repeated; the value may hold '=' and ','
      --explicitcreate        mount: fail if the volume does not exist (also: --explicitCreate)
      --now                   remove: for good, past the bin of drivers that have one
      --snapshot string       snapshot, remove-snapshot: name of the snapshot (default: one with the time in it)
      --size string           resize: the new size, e.g. 20 (GiB) or 500MiB
      --owner string          unmount: end the use of this owner, as status shows it, instead of Mesos's
  -o, --output string         text or json; version is text always
      --timeout duration      Give up after this time (mount 110s, unmount 9m)

Environment:
  HOLDFAST_ISOLATOR    socket of the isolator on this node (default /run/holdfast/isolator.sock)
`)
	return b.String()
}

// usageError is a command line that is wrong.
type usageError string

func (e usageError) Error() string { return string(e) }
