package nodecheck

import (
	"bytes"
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
	case c.agent != nil && c.answers && !c.reaches(c.agent.env["HOLDFAST_ISOLATOR"]):
		c.note("dvdcli", Failed, "set HOLDFAST_ISOLATOR="+c.o.Socket+" in the agent's environment and restart it", "%s looks for the isolator elsewhere than at %s", file, c.o.Socket)
	default:
		c.note("dvdcli", OK, "", "%s, on %s", file, whose)
	}
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

// isolation: the agent calls dvdcli only when it was told to.
func (c *checker) isolation() {
	if c.agent == nil {
		c.note("agent", Skipped, "", "no Mesos agent runs on this machine")
		return
	}
	flag := c.agent.env["MESOS_ISOLATION"]
	for i, a := range c.agent.args {
		if v, ok := strings.CutPrefix(a, "--isolation="); ok {
			flag = v
		} else if a == "--isolation" && i+1 < len(c.agent.args) {
			flag = c.agent.args[i+1]
		}
	}
	switch {
	case strings.Contains(flag, "docker/volume"):
		c.note("agent", OK, "", "pid %d, isolation %s", c.agent.pid, flag)
	case flag == "":
		c.note("agent", Warning, "start it with --isolation=docker/volume,filesystem/linux and what else it has", "pid %d: its isolation is said neither by flag nor by environment", c.agent.pid)
	default:
		c.note("agent", Failed, "add docker/volume and filesystem/linux to the agent's --isolation: without it tasks start without their volumes", "pid %d has isolation %s", c.agent.pid, flag)
	}
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
