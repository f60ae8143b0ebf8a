// Package sandbox lays out the directories of the embedded engine's tasks as a Mesos agent does, keeps what they
// print within bounds, and fetches what they ask for.
//
//	<agent dir>/slaves/<agent id>/frameworks/<framework id>/executors/<executor id>/runs/<container id>
//	<agent dir>/slaves/<agent id>/frameworks/<framework id>/executors/<executor id>/runs/latest -> <container id>
//	<agent dir>/volumes/roles/<role>/<persistence id>
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"
)

// Place names one sandbox.
type Place struct {
	Agent, Framework, Executor, Container string
}

// Dir gives the sandbox of a container below the agent's directory. Ids are single path components: whoever takes
// them from outside has called CheckID.
func Dir(agentDir string, p Place) string {
	return filepath.Join(agentDir, "slaves", p.Agent, "frameworks", p.Framework, "executors", p.Executor, "runs", p.Container)
}

// CheckID refuses an id that cannot be one path component.
func CheckID(id string) error {
	switch {
	case id == "" || id == "." || id == "..":
		return fmt.Errorf("id '%s' is not usable as a directory", id)
	case len(id) > 255:
		return fmt.Errorf("id of %d bytes is longer than 255", len(id))
	}
	for i := 0; i < len(id); i++ {
		if id[i] == '/' || id[i] < ' ' || id[i] == 0x7f {
			return fmt.Errorf("id %q contains invalid characters", id)
		}
	}
	return nil
}

// Create makes the sandbox, gives it to a user (nil: keeps this program's) and points `latest` at it.
func Create(agentDir string, p Place, user *syscall.Credential) (string, error) {
	for _, id := range []string{p.Agent, p.Framework, p.Executor, p.Container} {
		if err := CheckID(id); err != nil {
			return "", err
		}
	}
	dir := Dir(agentDir, p)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("make the sandbox: %w", err)
	}
	if err := os.Mkdir(dir, 0o750); err != nil { // as Mesos since 1.8: not for other users to read
		return "", fmt.Errorf("make the sandbox: %w", err)
	}
	if user != nil {
		if err := os.Lchown(dir, int(user.Uid), int(user.Gid)); err != nil {
			return "", fmt.Errorf("give the sandbox to uid %d: %w", user.Uid, err)
		}
	}
	latest := filepath.Join(filepath.Dir(dir), "latest")
	fresh := latest + "." + p.Container
	_ = os.Remove(fresh)
	if err := os.Symlink(p.Container, fresh); err != nil {
		return "", fmt.Errorf("point 'latest' at the sandbox: %w", err)
	}
	if err := os.Rename(fresh, latest); err != nil {
		return "", fmt.Errorf("point 'latest' at the sandbox: %w", err)
	}
	return dir, nil
}

// ContainerPath checks where a task wants to see a volume. It returns the clean path: relative to the sandbox, or
// absolute, which the caller may allow. Whatever climbs out by `..` is refused.
func ContainerPath(path string) (clean string, absolute bool, err error) {
	if path == "" || strings.ContainsRune(path, 0) || len(path) > 4096 {
		return "", false, fmt.Errorf("container path %q is empty, too long or holds a NUL", path)
	}
	for _, part := range strings.Split(path, "/") {
		if part == ".." {
			return "", false, fmt.Errorf("container path '%s' must not contain '..'", path)
		}
	}
	clean = filepath.Clean(path)
	if filepath.IsAbs(clean) {
		if clean == "/" {
			return "", true, errors.New("container path '/' would hide the whole file system")
		}
		return clean, true, nil
	}
	if clean == "." {
		return "", false, fmt.Errorf("container path '%s' is the sandbox itself", path)
	}
	if !filepath.IsLocal(clean) {
		return "", false, fmt.Errorf("container path '%s' is outside of the sandbox", path)
	}
	return clean, false, nil
}

// Link puts a symbolic link to target at a relative container path: what stands for a mount when this program is not root.
// No part of the path may be a link that leads out of the sandbox, and nothing may be there already.
func Link(dir, path, target string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the sandbox: %w", err)
	}
	defer root.Close()
	if parent := filepath.Dir(path); parent != "." {
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return fmt.Errorf("make the parent of container path '%s': %w", path, err)
		}
	}
	if err := root.Symlink(target, path); err != nil {
		return fmt.Errorf("link container path '%s': %w", path, err)
	}
	return nil
}

// PersistentVolume gives the directory of a persistent volume. Roles are hierarchical: a slash in one becomes a
// space in the directory's name, as on a Mesos agent.
func PersistentVolume(agentDir, role, id string) (string, error) {
	name := strings.ReplaceAll(role, "/", " ")
	for _, s := range []string{name, id} {
		if err := CheckID(s); err != nil {
			return "", fmt.Errorf("persistent volume: %w", err)
		}
	}
	return filepath.Join(agentDir, "volumes", "roles", name, id), nil
}

// Subdirectory makes a directory inside a sandbox, for a volume that is a part of it, and returns its absolute path. No link may
// lead out of the sandbox.
func Subdirectory(dir, path string, user *syscall.Credential) (string, error) {
	clean, absolute, err := ContainerPath(path)
	if err != nil {
		return "", err
	}
	if absolute {
		return "", fmt.Errorf("path '%s' is not relative to the sandbox", path)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("open the sandbox: %w", err)
	}
	defer root.Close()
	if err := root.MkdirAll(clean, 0o755); err != nil {
		return "", fmt.Errorf("make '%s' in the sandbox: %w", clean, err)
	}
	if user != nil {
		if err := root.Lchown(clean, int(user.Uid), int(user.Gid)); err != nil {
			return "", fmt.Errorf("give '%s' to uid %d: %w", clean, user.Uid, err)
		}
	}
	return filepath.Join(dir, clean), nil
}

// Remove deletes a sandbox below the agent's directory, and `latest` if it points there. Links in it are deleted, never followed; a
// sandbox in which something is mounted is left alone.
func Remove(agentDir, dir string) error {
	rel, err := filepath.Rel(filepath.Join(agentDir, "slaves"), dir)
	if err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("'%s' is no sandbox of this agent", dir)
	}
	mounted, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return err
	}
	if len(mounted) > 0 {
		return fmt.Errorf("'%s' is mounted", mounted[0].Mountpoint)
	}
	latest := filepath.Join(filepath.Dir(dir), "latest")
	if to, err := os.Readlink(latest); err == nil && to == filepath.Base(dir) {
		_ = os.Remove(latest)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(dir))               // runs, when it was the last
	_ = os.Remove(filepath.Dir(filepath.Dir(dir))) // the executor
	return nil
}
