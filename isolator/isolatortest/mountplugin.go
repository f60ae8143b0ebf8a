package isolatortest

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/isolator/mount"
)

// PluginProgram is the name under which a test binary runs MountPlugin.
const PluginProgram = "test-plugin"

// MountPlugin is a Docker volume plugin with real mounts, as a process that can be killed: volumes are directories below <dir>/data, bind-mounted
// below <dir>/mnt. Like many it counts its users by id in memory only, so that after a restart it knows the mounts and not who has them. It dawdles
// before and after each effect, up to -delay.
func MountPlugin() {
	socket := flag.String("socket", "", "where to listen")
	dir := flag.String("dir", "", "volumes and mount points")
	delay := flag.Duration("delay", 0, "longest pause before and after an effect")
	flag.Parse()
	_ = os.Remove(*socket)
	l, err := net.Listen("unix", *socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, "plugin:", err)
		os.Exit(1)
	}
	p := &mountPlugin{data: filepath.Join(*dir, "data"), mnt: filepath.Join(*dir, "mnt"), delay: *delay, ids: map[string]map[string]bool{}}
	fmt.Fprintln(os.Stderr, http.Serve(l, p))
	os.Exit(1)
}

type mountPlugin struct {
	data, mnt string
	delay     time.Duration

	mu  sync.Mutex
	ids map[string]map[string]bool // volume -> who has it mounted
}

type pluginCall struct{ Name, ID string }

type pluginAnswer struct {
	Implements   []string          `json:",omitempty"`
	Capabilities map[string]string `json:",omitempty"`
	Mountpoint   string            `json:",omitempty"`
	Volume       *pluginVolume     `json:",omitempty"`
	Volumes      []pluginVolume    `json:",omitempty"`
	Err          string            `json:",omitempty"`
}

type pluginVolume struct {
	Name       string
	Mountpoint string `json:",omitempty"`
}

func (p *mountPlugin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var c pluginCall
	_ = json.NewDecoder(r.Body).Decode(&c)
	p.dawdle()
	out, err := p.call(r.URL.Path, c)
	p.dawdle()
	if err != nil {
		out = pluginAnswer{Err: err.Error()}
		w.WriteHeader(http.StatusInternalServerError)
	}
	_ = json.NewEncoder(w).Encode(out)
}

func (p *mountPlugin) dawdle() {
	if p.delay > 0 {
		time.Sleep(rand.N(p.delay))
	}
}

var errNoSuchVolume = errors.New("no such volume")

func (p *mountPlugin) call(method string, c pluginCall) (pluginAnswer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	volume := filepath.Join(p.data, c.Name)
	there := c.Name != ""
	if _, err := os.Lstat(volume); errors.Is(err, fs.ErrNotExist) {
		there = false
	}
	switch method {
	case "/Plugin.Activate":
		return pluginAnswer{Implements: []string{"VolumeDriver"}}, nil
	case "/VolumeDriver.Capabilities":
		return pluginAnswer{Capabilities: map[string]string{"Scope": "global"}}, nil
	case "/VolumeDriver.Create":
		return pluginAnswer{}, os.MkdirAll(volume, 0o755)
	case "/VolumeDriver.List":
		var a pluginAnswer
		entries, err := os.ReadDir(p.data)
		for _, e := range entries {
			a.Volumes = append(a.Volumes, pluginVolume{Name: e.Name()})
		}
		return a, err
	}
	if !there {
		return pluginAnswer{}, errNoSuchVolume
	}
	switch method {
	case "/VolumeDriver.Get":
		return pluginAnswer{Volume: &pluginVolume{c.Name, p.mountpoint(c.Name)}}, nil
	case "/VolumeDriver.Path":
		return pluginAnswer{Mountpoint: p.mountpoint(c.Name)}, nil
	case "/VolumeDriver.Mount":
		return p.mount(volume, c)
	case "/VolumeDriver.Unmount":
		return pluginAnswer{}, p.unmount(c)
	case "/VolumeDriver.Remove":
		if p.mountpoint(c.Name) != "" {
			return pluginAnswer{}, errors.New("volume is in use")
		}
		return pluginAnswer{}, os.RemoveAll(volume)
	}
	return pluginAnswer{}, errors.New("unknown method " + method)
}

func (p *mountPlugin) mountpoint(name string) string {
	point := filepath.Join(p.mnt, name)
	if at, err := mount.Is(point); err == nil && at {
		return point
	}
	return ""
}

func (p *mountPlugin) mount(volume string, c pluginCall) (pluginAnswer, error) {
	point := filepath.Join(p.mnt, c.Name)
	if p.mountpoint(c.Name) == "" {
		if err := os.MkdirAll(point, 0o755); err != nil {
			return pluginAnswer{}, err
		}
		if err := unix.Mount(volume, point, "", unix.MS_BIND, ""); err != nil {
			return pluginAnswer{}, err
		}
	}
	if p.ids[c.Name] == nil {
		p.ids[c.Name] = map[string]bool{}
	}
	p.ids[c.Name][c.ID] = true
	return pluginAnswer{Mountpoint: point}, nil
}

func (p *mountPlugin) unmount(c pluginCall) error {
	delete(p.ids[c.Name], c.ID)
	if len(p.ids[c.Name]) > 0 || p.mountpoint(c.Name) == "" {
		return nil
	}
	return unix.Unmount(filepath.Join(p.mnt, c.Name), 0)
}

// TaskProgram is the name under which a test binary runs Task.
const TaskProgram = "test-task"

// Task is a task's process: it writes numbered lines into a volume, each durable before it says so on its standard output, until it is killed. It
// begins only when the path is a mount and all lines that it is told of are there.
//
//	test-task PATH LINES INCARNATION
//
// It says "gone" when the path is no mount any more, "lost N" when it finds fewer lines than there were, and else "have N", "ack N" ….
func Task() {
	path := os.Args[1]
	var lines, incarnation int
	_, _ = fmt.Sscan(os.Args[2], &lines)
	_, _ = fmt.Sscan(os.Args[3], &incarnation)
	file, have, err := openLines(path, lines)
	switch {
	case errors.Is(err, errOrder):
		fmt.Println("lost", err)
		return
	case err != nil:
		fmt.Println("gone", err)
		return
	case have < lines:
		fmt.Println("lost", have)
		return
	}
	fmt.Println("have", have)
	for n := have; ; n++ {
		if _, err := fmt.Fprintf(file, "%d %d\n", n, incarnation); err != nil {
			fmt.Println("failed", err)
			return
		}
		if err := file.Sync(); err != nil {
			fmt.Println("failed", err)
			return
		}
		fmt.Println("ack", n+1)
		time.Sleep(time.Duration(1+rand.IntN(10)) * time.Millisecond)
	}
}

var errOrder = errors.New("out of order")

// openLines opens the file through the directory that was found to be a mount, whatever is mounted or unmounted there meanwhile.
func openLines(path string, lines int) (*os.File, int, error) {
	dir, err := unix.Open(path, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	defer unix.Close(dir)
	var st unix.Statx_t
	if err := unix.Statx(dir, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return nil, 0, err
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return nil, 0, errors.New("no mount")
	}
	flags := unix.O_RDWR | unix.O_APPEND | unix.O_CLOEXEC
	if lines == 0 {
		flags |= unix.O_CREAT
	}
	fd, err := unix.Openat(dir, "lines", flags, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil // all lost
	}
	if err != nil {
		return nil, 0, err
	}
	file := os.NewFile(uintptr(fd), "lines")
	have, whole, err := CheckLines(file)
	if err == nil {
		err = file.Truncate(whole) // a line that was never said to be there
	}
	return file, have, err
}

// CheckLines counts the lines that Tasks have written and tells where the last whole one ends. An error names a line that is out of order, or was written by an
// older incarnation after a newer one.
func CheckLines(file *os.File) (n int, whole int64, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	if err != nil {
		return 0, 0, err
	}
	newest := 0
	for {
		end := slices.Index(raw, '\n')
		if end < 0 {
			return n, whole, nil
		}
		var number, incarnation int
		if _, err := fmt.Sscanf(string(raw[:end]), "%d %d", &number, &incarnation); err != nil || number != n || incarnation < newest {
			return n, whole, fmt.Errorf("%w: line %d is %q after incarnation %d", errOrder, n, raw[:end], newest)
		}
		newest = incarnation
		n++
		whole += int64(end) + 1
		raw = raw[end+1:]
	}
}
