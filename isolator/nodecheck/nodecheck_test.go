package nodecheck

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/identity"
)

// host is a made-up node: a /proc, an isolator that says what it is told to, and directories.
type host struct {
	*testing.T
	dir    string
	o      Options
	status client.Status
	caps   []client.Capability

	agentFlags map[string]string // nil: it does not tell
}

// healthy is a node on which every check passes; tests break one thing.
func healthy(t *testing.T) *host {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hfn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	boot, err := identity.KernelBootID()
	if err != nil {
		t.Fatal(err)
	}
	h := &host{T: t, dir: dir}
	marker := filepath.Join(dir, "installed")
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.agentFlags == nil {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"flags": h.agentFlags})
	}))
	t.Cleanup(agent.Close)
	h.agentFlags = map[string]string{"isolation": "filesystem/linux,docker/volume", "launcher": "linux", "docker_volume_checkpoint_dir": "/var/lib/mesos/dv"}
	h.write(marker, "", 0o644)
	h.write(filepath.Join(dir, "sys/devices/system/clocksource/clocksource0/current_clocksource"), "tsc\n", 0o644)
	h.o = Options{Marker: marker, Sys: filepath.Join(dir, "sys"), AgentURL: agent.URL, Socket: filepath.Join(dir, "i.sock"), DockerSocket: filepath.Join(dir, "plugins", "holdfast.sock"), PluginDirs: []string{filepath.Join(dir, "plugins")},
		Drivers: []string{"pool"}, Proc: filepath.Join(dir, "proc")}
	h.status = client.Status{Node: "n1", BootID: boot, PID: 7, Ready: true, Version: "9.9", Lease: "held for another 2s", Dir: filepath.Join(dir, "state"), Timings: "renews"}
	h.caps = []client.Capability{{Driver: "pool", Scope: "cluster", Ready: true}}
	h.process(7, "ns1", nil, "/usr/bin/holdfast", "isolator")
	h.write(filepath.Join(dir, "state", "x"), "", 0o644)
	h.process(8, "ns1", nil, "/usr/bin/holdfast", "isolator", "watchdog", "--state", filepath.Join(dir, "state", "watchdog"))
	h.proc(8, "oom_score_adj", "-1000\n")
	h.proc(8, "cgroup", "0::/watchdog\n")
	h.proc(7, "cgroup", "0::/isolator\n")
	h.process(9, "ns1", []string{"PATH=" + filepath.Join(dir, "bin"), "HOLDFAST_ISOLATOR=" + h.o.Socket}, "/usr/sbin/mesos-agent", "--isolation=filesystem/linux,docker/volume")
	h.process(10, "ns1", nil, "/usr/sbin/dockerd")
	h.script("bin/dvdcli", "#!/bin/sh\necho 'Program: holdfast'\n")
	h.listen(h.o.Socket, 0o660, func(m *http.ServeMux) {
		m.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(h.status) })
		m.HandleFunc("GET /v1/capabilities", func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]any{"drivers": h.caps})
		})
	})
	h.listen(h.o.DockerSocket, 0o660, func(m *http.ServeMux) {
		m.HandleFunc("POST /Plugin.Activate", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"Holdfast":"n1"}`)) })
	})
	return h
}

func (h *host) process(pid int, ns string, env []string, args ...string) {
	h.Helper()
	d := filepath.Join(h.o.Proc, itoa(pid))
	h.write(filepath.Join(d, "cmdline"), strings.Join(args, "\x00")+"\x00", 0o600)
	h.write(filepath.Join(d, "environ"), strings.Join(env, "\x00"), 0o600)
	_ = os.Mkdir(filepath.Join(d, "ns"), 0o755)
	_ = os.Remove(filepath.Join(d, "ns", "mnt"))
	if err := os.Symlink(ns, filepath.Join(d, "ns", "mnt")); err != nil {
		h.Fatal(err)
	}
}

func (h *host) proc(pid int, name, text string) {
	h.Helper()
	h.write(filepath.Join(h.o.Proc, itoa(pid), name), text, 0o600)
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func (h *host) script(name, text string) { h.write(filepath.Join(h.dir, name), text, 0o755) }

func (h *host) write(name, text string, mode os.FileMode) {
	h.Helper()
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	if err == nil {
		err = os.WriteFile(name, []byte(text), mode)
	}
	if err != nil {
		h.Fatal(err)
	}
}

func (h *host) listen(socket string, mode os.FileMode, routes func(*http.ServeMux)) {
	h.Helper()
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		h.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		h.Fatal(err)
	}
	if err := os.Chmod(socket, mode); err != nil {
		h.Fatal(err)
	}
	m := http.NewServeMux()
	routes(m)
	srv := &http.Server{Handler: m}
	go func() { _ = srv.Serve(l) }()
	h.Cleanup(func() { srv.Close() })
}

// find gives the finding of a check.
func (h *host) find(check string) Finding {
	h.Helper()
	for _, f := range Run(context.Background(), h.o) {
		if f.Check == check {
			return f
		}
	}
	h.Fatalf("no check %s", check)
	return Finding{}
}

func TestHealthyNode(t *testing.T) {
	h := healthy(t)
	seen := map[string]bool{}
	for _, f := range Run(context.Background(), h.o) {
		seen[f.Check] = true
		if f.Result != OK && f.Check != "clock" { // of the machine that tests run on
			t.Errorf("%+v", f)
		}
	}
	for _, check := range []string{"isolator", "socket", "authority", "watchdog", "boot id", "driver pool", "volumes", "mounts", "clock", "plugin sockets", "dvdcli", "agent", "agent checkpoints", "docker", "disk", "clock source", "marker", "stale mounts"} {
		if !seen[check] {
			t.Errorf("not checked: %s", check)
		}
	}
}

// One thing is broken at a time; the finding names it and says what to do.
func TestWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		check  string
		result Result
		found  string
		broken func(h *host)
	}{
		"no isolator":    {"isolator", Failed, "no isolator answers", func(h *host) { h.o.Socket += "x" }},
		"not ready":      {"isolator", Failed, "journal: full", func(h *host) { h.status.Ready, h.status.Problems = false, []string{"journal: full"} }},
		"draining":       {"isolator", Warning, "drained", func(h *host) { h.status.Draining = true }},
		"open socket":    {"socket", Warning, "every user", func(h *host) { _ = os.Chmod(h.o.Socket, 0o666) }},
		"lease ran out":  {"authority", Failed, "ran out", func(h *host) { h.status.Lease = "ran out 3s ago" }},
		"no watchdog":    {"watchdog", Warning, "no watchdog", func(h *host) { os.RemoveAll(filepath.Join(h.o.Proc, "8")) }},
		"another boot":   {"boot id", Warning, "played", func(h *host) { h.status.BootID = "played" }},
		"plugin dead":    {"driver pool", Failed, "connection refused", func(h *host) { h.caps[0].Ready, h.caps[0].Because = false, "connection\nrefused" }},
		"driver missing": {"driver rexray", Failed, "no driver of that name", func(h *host) { h.o.Drivers = append(h.o.Drivers, "rexray") }},
		"no driver":      {"drivers", Failed, "no volume driver", func(h *host) { h.caps = nil }},
		"unmount stuck": {"volume pool/db", Warning, "in use by pid 4", func(h *host) {
			h.status.Volumes = []client.VolumeStatus{{Driver: "pool", Name: "db", Phase: "unmounting", Retry: 3, Because: "in use by pid 4"}}
		}},
		"held with none": {"volume pool/db", Warning, "grade none", func(h *host) {
			h.status.Volumes = []client.VolumeStatus{{Driver: "pool", Name: "db", Phase: "mounted", Fence: "none"}}
		}},
		"no dead-man": {"dead-man", Failed, "grade is soft: open /dev/watchdog: device or resource busy", func(h *host) {
			h.status.Grade, h.status.DeadMan = "soft", &client.DeadMan{Path: "/dev/watchdog", Because: "open /dev/watchdog: device or resource busy"}
		}},
		"dead-man armed": {"dead-man", OK, "not fed for 5 s", func(h *host) {
			h.status.DeadMan = &client.DeadMan{Path: "/dev/watchdog", Armed: true, TimeoutSeconds: 5}
		}},
		"storage hangs":       {"storage", Warning, "2 calls", func(h *host) { h.status.Stuck = 2 }},
		"other namespace":     {"mounts", Failed, "another mount namespace", func(h *host) { h.process(7, "ns2", nil, "holdfast", "isolator") }},
		"stale plugin socket": {"plugin socket", Failed, "nobody answers", func(h *host) { staleSocket(h, filepath.Join(h.o.PluginDirs[0], "old.sock")) }},
		"dvdcli missing":      {"dvdcli", Failed, "not found", func(h *host) { os.Remove(filepath.Join(h.dir, "bin/dvdcli")) }},
		"old dvdcli":          {"dvdcli", Failed, "another dvdcli", func(h *host) { h.script("bin/dvdcli", "#!/bin/sh\necho 'SemVer: 0.2.1'\n") }},
		"dvdcli elsewhere": {"dvdcli", Failed, "elsewhere", func(h *host) {
			h.process(9, "ns1", []string{"PATH=" + filepath.Join(h.dir, "bin"), "HOLDFAST_ISOLATOR=/nowhere"}, "mesos-agent")
		}},
		"agent not told":        {"agent", Failed, "posix/cpu", func(h *host) { h.agentFlags["isolation"] = "posix/cpu" }},
		"agent without linux":   {"agent", Failed, "isolation docker/volume", func(h *host) { h.agentFlags["isolation"] = "docker/volume" }},
		"agent says nothing":    {"agent", OK, "its command line", func(h *host) { h.agentFlags = nil }},
		"agent by arguments":    {"agent", Failed, "posix/cpu", func(h *host) { h.agentFlags = nil; h.process(9, "ns1", nil, "mesos-agent", "--isolation", "posix/cpu") }},
		"posix launcher":        {"agent launcher", Failed, "posix", func(h *host) { h.agentFlags["launcher"] = "posix" }},
		"checkpoints in /run":   {"agent checkpoints", Warning, "/var/run/mesos", func(h *host) { delete(h.agentFlags, "docker_volume_checkpoint_dir") }},
		"no marker":             {"marker", Failed, "without claims", func(h *host) { os.Remove(h.o.Marker); h.process(9, "ns1", []string{"PATH=/"}, "mesos-agent") }},
		"marker by environment": {"marker", OK, "environment", func(h *host) { os.Remove(h.o.Marker) }},
		"bad clock": {"clock source", Warning, "timer ticks", func(h *host) {
			h.write(filepath.Join(h.o.Sys, "devices/system/clocksource/clocksource0/current_clocksource"), "refined-jiffies\n", 0o644)
		}},
		"another's watchdog":    {"watchdog", Warning, "no watchdog", func(h *host) { h.process(8, "ns1", nil, "holdfast", "isolator", "watchdog", "--state", "/elsewhere") }},
		"watchdog not spared":   {"watchdog", Warning, "memory runs out", func(h *host) { h.proc(8, "oom_score_adj", "0\n") }},
		"watchdog paged":        {"watchdog", Warning, "paged out", func(h *host) { h.proc(8, "status", "VmLck:\t       0 kB\n") }},
		"watchdog in our group": {"watchdog", Warning, "control group", func(h *host) { h.proc(8, "cgroup", "0::/isolator\n") }},
		"another version":       {"dvdcli", Warning, "1.0", func(h *host) { h.script("bin/dvdcli", "#!/bin/sh\necho 'Program: holdfast'\necho 'SemVer: 1.0'\n") }},
		"slave namespace": {"mounts", OK, "propagation", func(h *host) {
			h.process(9, "ns2", nil, "mesos-agent")
			h.proc(7, "mountinfo", "1 0 8:1 / / rw shared:5 - ext4 /dev/a rw\n")
			h.proc(9, "mountinfo", "9 0 8:1 / / rw master:5 - ext4 /dev/a rw\n10 9 0:5 / /proc rw - proc proc rw\n")
		}},
		"private namespace": {"mounts", Failed, "does not see", func(h *host) {
			h.process(9, "ns2", nil, "mesos-agent")
			h.proc(7, "mountinfo", "1 0 8:1 / / rw shared:5 - ext4 /dev/a rw\n")
			h.proc(9, "mountinfo", "9 0 8:1 / / rw - ext4 /dev/a rw\n")
		}},
		"agent by environment": {"agent", OK, "docker/volume", func(h *host) {
			h.agentFlags = nil
			h.process(9, "ns1", []string{"MESOS_ISOLATION=docker/volume,filesystem/linux"}, "mesos-agent")
		}},
		"docker without us":   {"docker", Warning, "cannot use", func(h *host) { h.o.DockerSocket += "x" }},
		"docker with another": {"docker", Failed, "not this isolator's", func(h *host) { h.status.Node = "n2" }},
		"no docker":           {"docker", Skipped, "no Docker", func(h *host) { os.RemoveAll(filepath.Join(h.o.Proc, "10")) }},
		"no agent":            {"agent", Skipped, "no Mesos agent", func(h *host) { os.RemoveAll(filepath.Join(h.o.Proc, "9")) }},
	} {
		t.Run(name, func(t *testing.T) {
			h := healthy(t)
			c.broken(h)
			f := h.find(c.check)
			if f.Result != c.result || !strings.Contains(f.Found, c.found) {
				t.Errorf("%+v", f)
			}
			if needs := f.Result == Failed || f.Result == Warning; needs != (f.Mend != "") {
				t.Errorf("what to do: %+v", f)
			}
		})
	}
}

func staleSocket(h *host, name string) {
	h.Helper()
	l, err := net.Listen("unix", name)
	if err != nil {
		h.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

func TestWorst(t *testing.T) {
	if w := Worst([]Finding{{Result: OK}, {Result: Failed}, {Result: Warning}}); w != Failed {
		t.Error(w)
	}
	if w := Worst([]Finding{{Result: OK}, {Result: Warning}, {Result: Skipped}}); w != Warning {
		t.Error(w)
	}
	if w := Worst(nil); w != OK {
		t.Error(w)
	}
}
