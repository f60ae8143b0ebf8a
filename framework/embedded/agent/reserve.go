package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/journal"
	"github.com/holdfast-io/holdfast/framework/embedded/sandbox"
)

// reserve makes reservations and persistent volumes durable. New directories are made first and old ones deleted last, so that whatever
// the resources on disk promise is there.
func (a *Agent) reserve(total, created, destroyed []mesos.Resource) error {
	for _, r := range created {
		if err := a.createVolume(r); err != nil {
			return err
		}
	}
	for _, r := range destroyed {
		if c := a.userOf(r); c != nil {
			return fmt.Errorf("agent: persistent volume '%s' is in use by task '%s'", r.Disk.Persistence.ID, c.task.TaskID.Value)
		}
	}
	a.mu.Lock()
	before := a.total
	a.total = append([]mesos.Resource(nil), total...)
	a.mu.Unlock()
	if err := a.saveIdentity(); err != nil {
		a.mu.Lock()
		a.total = before
		a.mu.Unlock()
		return err
	}
	for _, r := range destroyed {
		if err := a.destroyVolume(r); err != nil { // it is not offered any more; what is left is set aside when the name is used again
			a.log.Error("persistent volume is not deleted", zap.Error(err))
		}
	}
	return nil
}

func (a *Agent) volumeDir(r mesos.Resource) (string, error) {
	if r.Disk == nil || r.Disk.Persistence == nil {
		return "", fmt.Errorf("agent: resource '%s' is no persistent volume", r.Name)
	}
	return sandbox.PersistentVolume(a.cfg.Dir, reservedFor(r), r.Disk.Persistence.ID)
}

func (a *Agent) createVolume(r mesos.Resource) error {
	if a.cfg.Dir == "" {
		return nil
	}
	dir, err := a.volumeDir(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("agent: create volume: %w", err)
	}
	err = os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		if os.Remove(dir) == nil { // empty: a crash came before its reservation was on disk
			err = os.Mkdir(dir, 0o755)
		} else {
			// Data of an older volume of this name. It is neither shown to the new one's owner nor deleted.
			aside := filepath.Join(a.cfg.Dir, "volumes", "aside", filepath.Base(dir)+"."+uuid.NewString())
			if err = os.MkdirAll(filepath.Dir(aside), 0o700); err == nil {
				if err = os.Rename(dir, aside); err == nil {
					a.log.Warn("data of an older persistent volume of the same name was set aside", zap.String("at", aside))
					err = os.Mkdir(dir, 0o755)
				}
			}
		}
	}
	if err != nil {
		return fmt.Errorf("agent: create volume: %w", err)
	}
	return journal.SyncDir(filepath.Dir(dir))
}

// userOf finds a task that still has a persistent volume.
func (a *Agent) userOf(r mesos.Resource) *container {
	dir, err := a.volumeDir(r)
	if err != nil {
		return nil
	}
	for _, c := range a.allTasks() {
		if c.isClean() {
			continue
		}
		for _, used := range c.task.Resources {
			if d, err := a.volumeDir(used); err == nil && d == dir {
				return c
			}
		}
	}
	return nil
}

func (a *Agent) destroyVolume(r mesos.Resource) error {
	if a.cfg.Dir == "" {
		return nil
	}
	dir, err := a.volumeDir(r)
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
