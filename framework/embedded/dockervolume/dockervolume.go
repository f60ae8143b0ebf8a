// Package dockervolume does on an agent of the embedded engine what Apache Mesos's `docker/volume` isolator does:
// it executes dvdcli to mount the external volumes of a container before it starts and to unmount them after it
// has ended, counts the users of each volume, and keeps a checkpoint so that a restarted agent unmounts what its
// dead containers left. It has Mesos's habits on purpose, the odd ones too, because Holdfast's node helper must
// cope with them:
//
//   - `mount` is called for every container, also when the volume is mounted already; `unmount` once, after the last;
//   - a failed `mount` is followed by one `unmount`;
//   - a failed `unmount` is not tried again before the agent's next start;
//   - the checkpoint lives where a reboot of the machine forgets it, as /var/run does: see Forget.
package dockervolume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/process"
)

// Volume is what one container wants mounted.
type Volume struct {
	Driver  string
	Name    string
	Options []Option // given to dvdcli as they are, in this order
}

// Option is one driver option, raw.
type Option struct{ Key, Value string }

// key is what Mesos counts references by. The options are not part of it.
type key struct{ driver, name string }

// checkpoint is the file <dir>/<container id>/volumes, in Mesos's own format.
type checkpoint struct {
	Volumes []checkpointed `json:"volumes"`
}

type checkpointed struct {
	Driver string `json:"driver"`
	Name   string `json:"name"`
}

// Config of an isolator.
type Config struct {
	Dir        string   // checkpoints
	Dvdcli     string   // absolute path of the program, fixed when the agent starts
	Env        []string // environment of dvdcli, whole
	MountLimit time.Duration
	UnmountMax time.Duration
	Table      *process.Table
	Logger     *zap.Logger
}

// Isolator mounts and unmounts volumes for the containers of one agent. It is safe for concurrent use, one container's
// Prepare and Cleanup in that order.
type Isolator struct {
	cfg Config

	mu         sync.Mutex
	containers map[string][]key
	turns      map[key]*turn
}

// turn lets only one dvdcli work on a volume at a time.
type turn struct {
	sem   chan struct{}
	users int
}

// New returns an isolator that knows no container yet: see Recover.
func New(cfg Config) *Isolator {
	return &Isolator{cfg: cfg, containers: map[string][]key{}, turns: map[key]*turn{}}
}

// Prepare mounts the volumes of a container, side by side, and returns their mount points in the same order. The
// checkpoint is on disk before the first call. After an error the caller calls Cleanup, as after the container's end.
// When ctx ends (the agent stops) the dvdcli processes die with it.
func (i *Isolator) Prepare(ctx context.Context, container string, volumes []Volume) ([]string, error) {
	if len(volumes) == 0 {
		return nil, nil
	}
	keys, err := check(container, volumes)
	if err != nil {
		return nil, err
	}
	if i.cfg.Dvdcli == "" {
		return nil, errors.New("no dvdcli was found when the agent started, so docker volumes cannot be mounted")
	}
	if err := i.save(container, keys); err != nil {
		return nil, err
	}
	i.mu.Lock()
	i.containers[container] = keys
	i.mu.Unlock()

	points := make([]string, len(volumes))
	errs := make([]error, len(volumes))
	var wg sync.WaitGroup
	for n, v := range volumes {
		wg.Add(1)
		go func() {
			defer wg.Done()
			points[n], errs[n] = i.mount(ctx, v)
		}()
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return points, nil
}

func check(container string, volumes []Volume) ([]key, error) {
	seen := map[key]bool{}
	var keys []key
	for _, v := range volumes {
		k := key{v.Driver, v.Name}
		switch {
		case v.Driver == "":
			//lint:ignore ST1005 Mesos's own text
			return nil, fmt.Errorf("The volume driver is not specified for volume '%s' with container %s", v.Name, container)
		case seen[k]:
			//lint:ignore ST1005 Mesos's own text
			return nil, fmt.Errorf("Found duplicate docker volume with driver '%s' and name '%s'", v.Driver, v.Name)
		}
		words := []string{v.Driver, v.Name}
		for _, o := range v.Options {
			words = append(words, o.Key, o.Value)
		}
		for _, w := range words {
			if strings.ContainsRune(w, 0) {
				return nil, fmt.Errorf("docker volume %q holds a NUL in its driver, name or options", v.Name)
			}
		}
		seen[k] = true
		keys = append(keys, k)
	}
	return keys, nil
}

func (i *Isolator) mount(ctx context.Context, v Volume) (string, error) {
	leave, err := i.enter(ctx, key{v.Driver, v.Name})
	if err != nil {
		return "", err
	}
	defer leave()
	args := []string{"mount", "--volumedriver=" + v.Driver, "--volumename=" + v.Name}
	for _, o := range v.Options {
		args = append(args, "--volumeopts="+o.Key+"="+o.Value)
	}
	out, err := i.run(ctx, i.cfg.MountLimit, args)
	if err != nil {
		return "", err
	}
	return mountPoint(string(out.Stdout))
}

// mountPoint checks what dvdcli printed before anything is bound from there.
func mountPoint(stdout string) (string, error) {
	point := strings.TrimSpace(stdout)
	switch {
	case point == "":
		return "", errors.New("dvdcli mount printed no mount point")
	case strings.ContainsAny(point, "\n\x00") || !filepath.IsAbs(point):
		return "", fmt.Errorf("dvdcli mount printed %.200q, which is not one absolute path", point)
	}
	if st, err := os.Stat(point); err != nil {
		return "", fmt.Errorf("the mount point that dvdcli printed cannot be used: %w", err)
	} else if !st.IsDir() {
		return "", fmt.Errorf("the mount point '%s' that dvdcli printed is not a directory", point)
	}
	return filepath.Clean(point), nil
}

// run executes dvdcli: an argument vector, never a shell.
func (i *Isolator) run(ctx context.Context, limit time.Duration, args []string) (process.Outcome, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit,
		fmt.Errorf("dvdcli %s of volume '%s' was killed after %v", args[0], strings.TrimPrefix(args[2], "--volumename="), limit))
	defer cancel()
	out, err := i.cfg.Table.Run(ctx, process.Spec{
		Path: i.cfg.Dvdcli, Args: append([]string{i.cfg.Dvdcli}, args...), Env: i.cfg.Env,
	})
	if err != nil {
		return out, err
	}
	if !out.Exit.OK() {
		//lint:ignore ST1005 Mesos's own text
		return out, fmt.Errorf("Unexpected termination of the subprocess: %s", out.Stderr)
	}
	return out, nil
}

// Cleanup unmounts the volumes of a container that has ended (or never began), except those that another container uses.
// When an unmount fails the checkpoint stays, and nothing more is done about it before the agent starts again.
func (i *Isolator) Cleanup(ctx context.Context, container string) error {
	i.mu.Lock()
	keys := i.containers[container]
	delete(i.containers, container)
	free := i.unused(keys)
	i.mu.Unlock()
	return i.release(ctx, container, free)
}

// unused returns the volumes that no container uses now. Call it with the lock.
func (i *Isolator) unused(keys []key) []key {
	var free []key
	for _, k := range keys {
		used := false
		for _, others := range i.containers {
			for _, o := range others {
				used = used || o == k
			}
		}
		if !used {
			free = append(free, k)
		}
	}
	return free
}

func (i *Isolator) release(ctx context.Context, container string, keys []key) error {
	errs := make([]error, len(keys))
	var wg sync.WaitGroup
	for n, k := range keys {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[n] = i.unmount(ctx, k)
		}()
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(i.cfg.Dir, container))
}

func (i *Isolator) unmount(ctx context.Context, k key) error {
	leave, err := i.enter(ctx, k)
	if err != nil {
		return err
	}
	defer leave()
	i.mu.Lock()
	again := len(i.unused([]key{k})) == 0
	i.mu.Unlock()
	if again { // somebody has begun to use it while we waited for our turn: the last one unmounts
		return nil
	}
	_, err = i.run(ctx, i.cfg.UnmountMax, []string{"unmount", "--volumedriver=" + k.driver, "--volumename=" + k.name})
	return err
}

// enter waits for this volume's turn.
func (i *Isolator) enter(ctx context.Context, k key) (leave func(), err error) {
	i.mu.Lock()
	t := i.turns[k]
	if t == nil {
		t = &turn{sem: make(chan struct{}, 1)}
		i.turns[k] = t
	}
	t.users++
	i.mu.Unlock()
	done := func() {
		i.mu.Lock()
		if t.users--; t.users == 0 {
			delete(i.turns, k)
		}
		i.mu.Unlock()
	}
	select {
	case t.sem <- struct{}{}:
		return func() { <-t.sem; done() }, nil
	case <-ctx.Done():
		done()
		return nil, context.Cause(ctx)
	}
}

// Recover reads the checkpoints of an earlier run. Containers that alive knows keep their volumes. For the others the function that it
// returns unmounts every volume that no living container uses, once each even if several had it; call it when no process of
// theirs is left.
func (i *Isolator) Recover(alive func(container string) bool) (release func(ctx context.Context)) {
	nothing := func(context.Context) {}
	entries, err := os.ReadDir(i.cfg.Dir)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			i.cfg.Logger.Error("volume checkpoints cannot be read", zap.Error(err))
		}
		return nothing
	}
	dead := map[string][]key{}
	i.mu.Lock()
	for _, e := range entries {
		container := e.Name()
		if _, known := i.containers[container]; known {
			continue
		}
		keys, err := i.load(container)
		if err != nil { // an intent that never reached the disk: nothing was mounted for it
			i.cfg.Logger.Warn("volume checkpoint is unreadable and dropped", zap.String("container", container), zap.Error(err))
			_ = os.RemoveAll(filepath.Join(i.cfg.Dir, container))
			continue
		}
		if alive(container) {
			i.containers[container] = keys
		} else {
			dead[container] = keys
		}
	}
	owners := map[key][]string{} // volumes to unmount and the dead containers that had them
	for container, keys := range dead {
		free := i.unused(keys)
		if len(free) == 0 {
			_ = os.RemoveAll(filepath.Join(i.cfg.Dir, container))
		}
		for _, k := range free {
			owners[k] = append(owners[k], container)
		}
	}
	i.mu.Unlock()
	return func(ctx context.Context) { i.releaseDead(ctx, owners) }
}

func (i *Isolator) releaseDead(ctx context.Context, owners map[key][]string) {
	failed := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for k, containers := range owners {
		sort.Strings(containers)
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := i.unmount(ctx, k); err != nil {
				mu.Lock()
				for _, c := range containers {
					failed[c] = true
				}
				mu.Unlock()
				if ctx.Err() != nil {
					return
				}
				i.cfg.Logger.Warn("volume of a dead container is not unmounted; tried again at the next start",
					zap.String("driver", k.driver), zap.String("volume", k.name), zap.Error(err))
			}
		}()
	}
	wg.Wait()
	for _, containers := range owners {
		for _, c := range containers {
			if !failed[c] {
				_ = os.RemoveAll(filepath.Join(i.cfg.Dir, c))
			}
		}
	}
}

// Forget drops all checkpoints without a call: what a reboot does to Mesos's /var/run.
func (i *Isolator) Forget() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.containers = map[string][]key{}
	return os.RemoveAll(i.cfg.Dir)
}

// Containers lists the containers that have volumes now, for people to look at.
func (i *Isolator) Containers() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []string
	for c := range i.containers {
		out = append(out, c)
	}
	sort.Strings(out)
	return out
}

// save writes the checkpoint so that it survives a crash of the machine.
func (i *Isolator) save(container string, keys []key) error {
	var c checkpoint
	for _, k := range keys {
		c.Volumes = append(c.Volumes, checkpointed{k.driver, k.name})
	}
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	dir := filepath.Join(i.cfg.Dir, container)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("checkpoint the volumes: %w", err)
	}
	if err := writeSynced(dir, "volumes", data); err != nil {
		return fmt.Errorf("checkpoint the volumes: %w", err)
	}
	return nil
}

func writeSynced(dir, name string, data []byte) error {
	f, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		h, err := os.Open(d)
		if err != nil {
			return err
		}
		err = h.Sync()
		h.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (i *Isolator) load(container string) ([]key, error) {
	data, err := os.ReadFile(filepath.Join(i.cfg.Dir, container, "volumes"))
	if err != nil {
		return nil, err
	}
	var c checkpoint
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	var keys []key
	for _, v := range c.Volumes {
		keys = append(keys, key{v.Driver, v.Name})
	}
	return keys, nil
}
