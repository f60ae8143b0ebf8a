package csiwire

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Stage says for which calls a secret is. Each is also the name of a directory with the secrets of these calls alone.
type Stage string

// The stages: creating and deleting a volume; attaching; staging; publishing; expanding, by the controller and by the node; snapshots.
const (
	Provision        Stage = "provision"
	Attach           Stage = "attach"
	NodeStage        Stage = "stage"
	NodePublish      Stage = "publish"
	ControllerExpand Stage = "expand"
	NodeExpand       Stage = "node-expand"
	Snapshot         Stage = "snapshot"
)

// Stages are all there are.
var Stages = []Stage{Provision, Attach, NodeStage, NodePublish, ControllerExpand, NodeExpand, Snapshot}

// secrets reads what the plugin needs to know and nobody else may: each file of a directory is one secret, by its name. A file in the directory
// itself goes with every call that takes secrets, one in a directory named like a stage with the calls of that stage. They
// are read at every call, so that they can be changed, and are never kept, logged or written anywhere.
type secrets struct{ dir string }

const (
	maxSecret  = 64 << 10
	maxSecrets = 64
)

func (s secrets) read(stage Stage) (map[string]string, error) {
	if s.dir == "" {
		return nil, nil
	}
	out, dirs, err := readSecrets(s.dir)
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		if !slices.Contains(Stages, Stage(d)) {
			return nil, fault.New(fault.Invalid, "directory %s among the secrets in %s is none of the stages %v", d, s.dir, Stages)
		}
	}
	if !slices.Contains(dirs, string(stage)) {
		return out, nil
	}
	own, below, err := readSecrets(filepath.Join(s.dir, string(stage)))
	if err == nil && len(below) > 0 {
		err = fault.New(fault.Denied, "secret %s is not a regular file", filepath.Join(s.dir, string(stage), below[0]))
	}
	maps.Copy(out, own)
	return out, err
}

func readSecrets(dir string) (found map[string]string, dirs []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Unavailable, err, "read secrets")
	}
	found = map[string]string{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if e.IsDir() {
			dirs = append(dirs, e.Name())
			continue
		}
		if len(found) == maxSecrets {
			return nil, nil, fault.New(fault.Invalid, "more than %d secrets in %s", maxSecrets, dir)
		}
		if found[e.Name()], err = readSecret(filepath.Join(dir, e.Name())); err != nil {
			return nil, nil, err
		}
	}
	return found, dirs, nil
}

func readSecret(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "read secret")
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return "", fault.Wrap(fault.Unavailable, err, "read secret")
	case !fi.Mode().IsRegular():
		return "", fault.New(fault.Denied, "secret %s is not a regular file", path)
	case fi.Mode().Perm()&0o077 != 0:
		return "", fault.New(fault.Denied, "secret %s may be read by others than its owner (mode %#o); chmod 600 it", path, fi.Mode().Perm())
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "read secret")
	}
	if len(raw) > maxSecret {
		return "", fault.New(fault.Invalid, "secret %s is larger than %d bytes", path, maxSecret)
	}
	return strings.TrimSuffix(string(raw), "\n"), nil
}

// hide takes secrets out of what a plugin says: it may repeat what it was sent.
func hide(text string, known map[string]string) string {
	for _, v := range known {
		if len(v) >= 3 {
			text = strings.ReplaceAll(text, v, "***")
		}
	}
	return text
}
