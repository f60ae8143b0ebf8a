package pool

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// make makes the file system in the image of a directory. All arguments are ours.
func (f fileSystem) make(ctx context.Context, dir, id string) error {
	program, err := findProgram(f.command)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "make its file system (Debian package %s)", f.debian)
	}
	cmd := exec.CommandContext(ctx, program, f.args(id)...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		text := bytes.TrimSpace(said.Bytes())
		if bytes.Contains(text, []byte("No space left")) {
			return fault.New(fault.Unavailable, "the pool is full: %s: %.300s", f.command, text)
		}
		return fault.Wrap(fault.Unavailable, err, "%s: %.300s", f.command, text)
	}
	return nil
}

// findProgram looks where system programs are, too: a service's PATH may not have them.
func findProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if fi, serr := os.Stat(filepath.Join(dir, name)); serr == nil && fi.Mode()&0o111 != 0 {
			return filepath.Join(dir, name), nil
		}
	}
	return "", err
}
