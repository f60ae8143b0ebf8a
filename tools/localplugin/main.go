// Command localplugin serves Docker's own local volume driver as a volume plugin, for tests: a real driver that mounts in the kernel and whose
// mounts outlive it. With -shim it goes through go-plugins-helpers' shim, which does the work and then loses the reply.
package main

import (
	"flag"
	"log"
	"os"

	"github.com/docker/docker/pkg/idtools"
	docker "github.com/docker/docker/volume"
	"github.com/docker/docker/volume/local"
	"github.com/docker/go-plugins-helpers/volume"
	"github.com/docker/go-plugins-helpers/volume/shim"
)

func main() {
	root := flag.String("root", "", "where volumes are kept")
	socket := flag.String("socket", "", "where to listen")
	lossy := flag.Bool("shim", false, "lose replies")
	flag.Parse()
	d, err := local.New(*root, idtools.Identity{UID: os.Getuid(), GID: os.Getgid()})
	if err != nil {
		log.Fatal(err)
	}
	h := volume.NewHandler(adapter{d})
	if *lossy {
		h = shim.NewHandlerFromVolumeDriver(d)
	}
	log.Fatal(h.ServeUnix(*socket, os.Getgid()))
}

type adapter struct{ d docker.Driver }

func wire(v docker.Volume) *volume.Volume {
	return &volume.Volume{Name: v.Name(), Mountpoint: v.Path()}
}

func (a adapter) Create(r *volume.CreateRequest) error {
	_, err := a.d.Create(r.Name, r.Options)
	return err
}

func (a adapter) List() (*volume.ListResponse, error) {
	all, err := a.d.List()
	if err != nil {
		return nil, err
	}
	out := &volume.ListResponse{}
	for _, v := range all {
		out.Volumes = append(out.Volumes, wire(v))
	}
	return out, nil
}

func (a adapter) Get(r *volume.GetRequest) (*volume.GetResponse, error) {
	v, err := a.d.Get(r.Name)
	if err != nil {
		return nil, err
	}
	return &volume.GetResponse{Volume: wire(v)}, nil
}

func (a adapter) Remove(r *volume.RemoveRequest) error {
	v, err := a.d.Get(r.Name)
	if err != nil {
		return err
	}
	return a.d.Remove(v)
}

func (a adapter) Path(r *volume.PathRequest) (*volume.PathResponse, error) {
	v, err := a.d.Get(r.Name)
	if err != nil {
		return nil, err
	}
	return &volume.PathResponse{Mountpoint: v.Path()}, nil
}

func (a adapter) Mount(r *volume.MountRequest) (*volume.MountResponse, error) {
	v, err := a.d.Get(r.Name)
	if err != nil {
		return nil, err
	}
	path, err := v.Mount(r.ID)
	return &volume.MountResponse{Mountpoint: path}, err
}

func (a adapter) Unmount(r *volume.UnmountRequest) error {
	v, err := a.d.Get(r.Name)
	if err != nil {
		return err
	}
	return v.Unmount(r.ID)
}

func (a adapter) Capabilities() *volume.CapabilitiesResponse {
	return &volume.CapabilitiesResponse{Capabilities: volume.Capability{Scope: a.d.Scope()}}
}
