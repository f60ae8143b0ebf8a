package nodecheck

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

type process struct {
	pid  int
	name string
	args []string
	env  map[string]string // nil when it may not be read
}

// processes lists what runs, without those that ended meanwhile.
func processes(proc string) []process {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil
	}
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline"))
		if err != nil || len(raw) == 0 {
			continue
		}
		args := strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
		out = append(out, process{pid: pid, name: filepath.Base(args[0]), args: args})
	}
	return out
}

func findProcess(proc string, names ...string) *process {
	for _, p := range processes(proc) {
		if !slices.Contains(names, p.name) {
			continue
		}
		if raw, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(p.pid), "environ")); err == nil {
			p.env = map[string]string{}
			for _, kv := range strings.Split(string(raw), "\x00") {
				if k, v, ok := strings.Cut(kv, "="); ok {
					p.env[k] = v
				}
			}
		}
		return &p
	}
	return nil
}

// dvdcli must be the first of that name where the agent looks, be ours, and find this isolator.
func (c *checker) dvdcli(ctx context.Context) {
	path, whose := c.o.Path, "this shell's PATH"
	if c.agent != nil {
		if c.agent.env == nil {
			c.note("dvdcli", Skipped, "", "the environment of the agent (pid %d) cannot be read: run this as root", c.agent.pid)
			return
		}
		path, whose = c.agent.env["PATH"], "the PATH of the agent"
	}
	file := lookIn(path)
	if file == "" {
		c.note("dvdcli", Failed, "put dvdcli into a directory of the agent's PATH and restart the agent; without it every task with a volume fails", "not found on %s (%s)", whose, path)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, file, "version").Output()
	switch {
	case err != nil:
		c.note("dvdcli", Failed, "install it anew", "%s version: %v", file, err)
	case !bytes.Contains(out, []byte("Program: holdfast")):
		c.note("dvdcli", Failed, "put Holdfast's before it, or replace it: it mounts without claims", "%s is another dvdcli", file)
	case c.answers && !sameVersion(string(out), c.status.Version):
		c.note("dvdcli", Warning, "install both from one package", "%s says %s, the isolator is %s", file, strings.Join(strings.Fields(string(out)), " "), c.status.Version)
	case c.agent != nil && c.answers && !c.reaches(c.agent.env["HOLDFAST_ISOLATOR"]):
		c.note("dvdcli", Failed, "set HOLDFAST_ISOLATOR="+c.o.Socket+" in the agent's environment and restart it", "%s looks for the isolator elsewhere than at %s", file, c.o.Socket)
	default:
		c.note("dvdcli", OK, "", "%s, on %s", file, whose)
	}
}

// sameVersion tells whether dvdcli's lines name the isolator's version, or none.
func sameVersion(lines, version string) bool {
	for line := range strings.Lines(lines) {
		if v, ok := strings.CutPrefix(line, "SemVer:"); ok {
			return strings.TrimSpace(v) == version
		}
	}
	return true
}

// reaches tells whether what the agent's environment says leads to the isolator that was asked.
func (c *checker) reaches(socket string) bool {
	if socket == "" {
		socket = "/run/holdfast/isolator.sock"
	}
	a, err1 := os.Stat(socket)
	b, err2 := os.Stat(c.o.Socket)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

func lookIn(path string) string {
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, "dvdcli")
		if fi, err := os.Stat(file); err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o111 != 0 && filepath.IsAbs(file) {
			return file
		}
	}
	return ""
}

// flags: the agent calls dvdcli only when it was told to, and must remember what it has mounted. Its own word counts, then its command line.
func (c *checker) flags(ctx context.Context) {
	if c.agent == nil {
		c.note("agent", Skipped, "", "no Mesos agent runs on this machine")
		return
	}
	url := cmp.Or(c.o.AgentURL, c.status.AgentURL, "http://127.0.0.1:"+cmp.Or(c.said("port"), "5051"))
	flags, err := askFlags(ctx, url)
	from := url + "/flags"
	if err != nil {
		flags, from = nil, "its command line ("+err.Error()+")"
	}
	flag := func(name string) string {
		if flags != nil {
			return flags[name]
		}
		return c.said(name)
	}
	isolation := flag("isolation")
	parts := strings.Split(isolation, ",")
	switch {
	case slices.Contains(parts, "docker/volume") && slices.Contains(parts, "filesystem/linux"):
		c.note("agent", OK, "", "pid %d, isolation %s, by %s", c.agent.pid, isolation, from)
	case isolation == "":
		c.note("agent", Warning, "start it with --isolation=docker/volume,filesystem/linux and what else it has", "pid %d: its isolation is said neither by flag nor by environment", c.agent.pid)
	default:
		c.note("agent", Failed, "add docker/volume and filesystem/linux to the agent's --isolation, and restart it: without them tasks start without their volumes", "pid %d has isolation %s, by %s", c.agent.pid, isolation, from)
	}
	if launcher := flag("launcher"); launcher != "" && launcher != "linux" {
		c.note("agent launcher", Failed, "start the agent with --launcher=linux: filesystem/linux needs it", "launcher %s", launcher)
	}
	c.checkpoints(flag("docker_volume_checkpoint_dir"))
}

// checkpoints: what the agent notes of its mounts must outlive what it notes of its containers, or it never unmounts.
func (c *checker) checkpoints(dir string) {
	dir = filepath.Clean(cmp.Or(dir, "/var/run/mesos/isolators/docker/volume"))
	if under(dir, "/var/run") || under(dir, "/run") || under(dir, "/tmp") {
		c.note("agent checkpoints", Warning, "start the agent with --docker_volume_checkpoint_dir=/var/lib/mesos/isolators/docker/volume",
			"the agent notes its mounts in %s, which may be emptied while tasks run: it then never unmounts for them", dir)
		return
	}
	c.note("agent checkpoints", OK, "", "%s", dir)
}

func under(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// said gives a flag of the agent as its command line or its environment has it.
func (c *checker) said(name string) string {
	value := c.agent.env["MESOS_"+strings.ToUpper(name)]
	for i, a := range c.agent.args {
		if v, ok := strings.CutPrefix(a, "--"+name+"="); ok {
			value = v
		} else if a == "--"+name && i+1 < len(c.agent.args) {
			value = c.agent.args[i+1]
		}
	}
	return value
}

// askFlags asks the agent for all flags that it goes by.
func askFlags(ctx context.Context, url string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+"/flags", nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fault.New(fault.Unavailable, "%s/flags answers %s", url, resp.Status)
	}
	var a struct {
		Flags map[string]string `json:"flags"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&a); err != nil {
		return nil, fault.Wrap(fault.Unknown, err, "%s/flags", url)
	}
	if len(a.Flags) == 0 {
		return nil, fault.New(fault.Unknown, "%s/flags names no flags", url)
	}
	return a.Flags, nil
}

// docker: where a Docker Engine runs, it must reach this isolator and no other.
func (c *checker) docker(ctx context.Context) {
	if c.o.DockerSocket == "" || findProcess(c.o.Proc, "dockerd") == nil {
		c.note("docker", Skipped, "", "no Docker Engine runs here")
		return
	}
	node, err := activate(ctx, c.o.DockerSocket)
	switch {
	case err != nil:
		c.note("docker", Warning, "start the isolator with --docker-socket "+c.o.DockerSocket+" as root", "Docker cannot use these volumes: %v", err)
	case node == "" || c.answers && node != c.status.Node:
		c.note("docker", Failed, "stop the other program that listens there", "%s is not this isolator's", c.o.DockerSocket)
	default:
		c.note("docker", OK, "", "--volume-driver=%s", strings.TrimSuffix(filepath.Base(c.o.DockerSocket), ".sock"))
	}
}

// activate asks a plugin whose it is.
func activate(ctx context.Context, socket string) (node string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin/Plugin.Activate", nil)
	if err != nil {
		return "", err
	}
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var a struct{ Holdfast string }
	err = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&a)
	return a.Holdfast, err
}
