// Package nodecheck tells an administrator what is wrong on a node and how to mend it. It looks from outside: at the isolator's socket, at
// /proc, at mountinfo and at plugin sockets, changes nothing, and waits for nothing longer than a few seconds.
package nodecheck

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/identity"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// Result says how a check came out.
type Result string

// The results. Only Failed means that volumes cannot be used, or not safely.
const (
	OK      Result = "ok"
	Warning Result = "warning"
	Failed  Result = "failed"
	Skipped Result = "skipped" // it does not apply here, or could not be looked at
)

// Finding is one check.
type Finding struct {
	Check  string `json:"check"`
	Result Result `json:"result"`
	Found  string `json:"found"`
	Mend   string `json:"mend,omitempty"` // what to do; with Warning and Failed
}

// Options say where to look. The zero value of a field means that it is not checked, but for Proc.
type Options struct {
	Socket       string   // the isolator's
	DockerSocket string   // on which it is a plugin of Docker's
	PluginDirs   []string // where plugins' sockets are
	Drivers      []string // that must be there and ready
	Proc         string   // "" is /proc
	Path         string   // PATH to search for dvdcli where no agent runs
	Marker       string   // file that tells dvdcli that an isolator is installed
	Sys          string   // "" is /sys
	AgentURL     string   // the agent's endpoint; "" takes what the isolator goes by, then the agent's own default
}

// Run makes all checks, in the order in which an administrator would mend them.
func Run(ctx context.Context, o Options) []Finding {
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	if o.Sys == "" {
		o.Sys = "/sys"
	}
	c := &checker{o: o, agent: findProcess(o.Proc, "mesos-agent", "mesos-slave", "lt-mesos-agent")}
	c.isolator(ctx)
	c.permissions()
	if c.answers {
		c.lease()
		c.watchdog()
		c.deadMan()
		c.boot()
		c.drivers(ctx)
		c.volumes(ctx)
		c.strays()
		c.propagation()
		c.disk()
	}
	c.clock()
	c.clockSource()
	c.marker()
	c.plugins()
	c.dvdcli(ctx)
	c.flags(ctx)
	c.docker(ctx)
	return c.found
}

// Worst gives the worst result of a list.
func Worst(all []Finding) Result {
	worst := OK
	for _, f := range all {
		if f.Result == Failed || f.Result == Warning && worst == OK {
			worst = f.Result
		}
	}
	return worst
}

type checker struct {
	o       Options
	agent   *process
	answers bool
	status  client.Status
	found   []Finding
}

func (c *checker) note(check string, r Result, mend, format string, args ...any) {
	if r == OK || r == Skipped {
		mend = ""
	}
	c.found = append(c.found, Finding{Check: check, Result: r, Found: strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "), Mend: mend})
}

func (c *checker) isolator(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	st, err := client.New(c.o.Socket).Status(ctx)
	if err != nil {
		c.note("isolator", Failed, "start it (systemctl start holdfast-isolator), or say by --socket or HOLDFAST_ISOLATOR where it listens", "%v", err)
		return
	}
	c.answers, c.status = true, st
	switch {
	case st.Draining:
		c.note("isolator", Warning, "it takes no mounts until it is started again", "node %s is being drained", st.Node)
	case !st.Ready:
		c.note("isolator", Failed, "mend what is named here; tasks on this node cannot start until then", "node %s takes no mounts: %s", st.Node, strings.Join(st.Problems, "; "))
	default:
		c.note("isolator", OK, "", "node %s, version %s, pid %d", st.Node, st.Version, st.PID)
	}
	for _, p := range st.Problems {
		c.note("problem", Warning, "see the isolator's log around it", "%s", p)
	}
}

// permissions: who may open the socket may mount and unmount anything.
func (c *checker) permissions() {
	fi, err := os.Stat(c.o.Socket)
	switch {
	case err != nil:
		c.note("socket", Failed, "see isolator", "%v", err)
	case fi.Mode()&os.ModeSocket == 0:
		c.note("socket", Failed, "remove it and start the isolator again", "%s is no socket", c.o.Socket)
	case fi.Mode().Perm()&0o002 != 0:
		c.note("socket", Warning, "start the isolator with --socket-mode 0660 and --socket-group", "%s has mode %04o: every user of this node may unmount volumes", c.o.Socket, fi.Mode().Perm())
	default:
		c.note("socket", OK, "", "%s has mode %04o", c.o.Socket, fi.Mode().Perm())
	}
}

func (c *checker) lease() {
	if strings.HasPrefix(c.status.Lease, "held") {
		c.note("authority", OK, "", "lease %s, generation %d; %s", c.status.Lease, c.status.Generation, c.status.Timings)
		return
	}
	c.note("authority", Failed, "see that the lease authority (--authority) runs and can be reached from this node; the isolator goes on by itself", "lease %s", c.status.Lease)
}

func (c *checker) boot() {
	id, err := identity.KernelBootID()
	switch {
	case err != nil:
		c.note("boot id", Skipped, "", "%v", err)
	case c.status.BootID != id:
		c.note("boot id", Warning, "start the isolator without --boot-id", "the isolator goes by boot %s, the kernel by %s (right only where one machine plays several nodes)", c.status.BootID, id)
	default:
		c.note("boot id", OK, "", "%s", id)
	}
}

func (c *checker) drivers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	all, err := client.New(c.o.Socket).Capabilities(ctx)
	if err != nil {
		c.note("drivers", Failed, "a plugin may hang; see the isolator's log", "%v", err)
		return
	}
	known := map[string]bool{}
	for _, d := range all {
		known[d.Driver] = true
		if d.Ready {
			c.note("driver "+d.Driver, OK, "", "ready, scope %s", d.Scope)
		} else {
			c.note("driver "+d.Driver, Failed, "start or mend the driver; its volumes cannot be mounted or unmounted until then", "not ready: %s", d.Because)
		}
	}
	for _, name := range c.o.Drivers {
		if !known[name] {
			c.note("driver "+name, Failed, "install the volume plugin, so that its socket is in "+strings.Join(c.o.PluginDirs, " or ")+", or give the isolator --pool "+name+"=DIR", "this node has no driver of that name")
		}
	}
	if len(known) == 0 {
		c.note("drivers", Failed, "give the isolator --pool NAME=DIR, or install a Docker volume plugin", "this node has no volume driver")
	}
}

func (c *checker) volumes(ctx context.Context) {
	bad := 0
	for _, v := range c.status.Volumes {
		name := "volume " + v.Driver + "/" + v.Name
		if v.Fence == "none" {
			c.note(name, Warning, "see watchdog; the isolator corrects it when the watchdog is there again", "its claim says fence grade none: if this node is lost, it waits for an operator's word")
		}
		switch {
		case v.Retry > 0:
			bad++
			c.note(name, Warning, "stop who uses it, or mend its driver; the isolator repeats it by itself", "%s, tried %d times: %s", v.Phase, v.Retry, v.Because)
		case v.Path != "" && mount.Dead(ctx, v.Path):
			bad++
			c.note(name, Failed, "restart the plugin and then the tasks that use it; the isolator takes the dead mount away when they are gone", "the process that serves %s has died", v.Path)
		}
	}
	if bad == 0 {
		c.note("volumes", OK, "", "%d mounted or on their way, none of them stuck", len(c.status.Volumes))
	}
	if c.status.Stuck > 0 {
		c.note("storage", Warning, "see which storage does not answer: the kernel's log and `holdfast isolator status` say", "%d calls hang in the kernel", c.status.Stuck)
	}
}

// clock: leases go by clocks that nobody sets; people's times and TLS go by this one.
func (c *checker) clock() {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		c.note("clock", Skipped, "", "%v", err)
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		c.note("clock", Warning, "run an NTP client (chrony, systemd-timesyncd)", "the kernel's clock is not synchronized; leases do not depend on it, times in logs and certificates do")
	default:
		c.note("clock", OK, "", "synchronized")
	}
}

// plugins looks for sockets that dead plugins left behind: Docker and the isolator take them for plugins.
func (c *checker) plugins() {
	dead := 0
	for _, dir := range c.o.PluginDirs {
		sockets, _ := filepath.Glob(filepath.Join(dir, "*.sock"))
		deeper, _ := filepath.Glob(filepath.Join(dir, "*", "*.sock"))
		for _, s := range append(sockets, deeper...) {
			conn, err := net.DialTimeout("unix", s, 2*time.Second)
			if err == nil {
				conn.Close()
				continue
			}
			dead++
			c.note("plugin socket", Failed, "start the plugin again, or remove the file", "nobody answers on %s: %v", s, err)
		}
	}
	if dead == 0 && len(c.o.PluginDirs) > 0 {
		c.note("plugin sockets", OK, "", "everyone in %s answers", strings.Join(c.o.PluginDirs, ", "))
	}
}
