package csi

import (
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// secrets reads what the plugin needs to know and nobody else may: each file of a directory is one secret, by its name. They
// are read at every call, so that they can be changed, and are never kept, logged or written anywhere.
type secrets struct{ dir string }

const (
	maxSecret  = 64 << 10
	maxSecrets = 64
)

func (s secrets) read() (map[string]string, error) {
	if s.dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read secrets")
	}
	out := map[string]string{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if len(out) == maxSecrets {
			return nil, fault.New(fault.Invalid, "more than %d secrets in %s", maxSecrets, s.dir)
		}
		if out[e.Name()], err = readSecret(filepath.Join(s.dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return out, nil
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
