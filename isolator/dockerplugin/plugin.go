// Package dockerplugin is the isolator's face towards Docker: a volume plugin (protocol v1, JSON over HTTP on a unix socket) with which
// `docker run --volume-driver=holdfast -v pgdata:/data` and Mesos's Docker containerizer get every driver behind the isolator, under
// the same claims and in the same journal as Mesos's own mounts.
//
// Docker names a volume by one word and each use of it by an id that stays the same until it unmounts. The word is looked up by
// Service.Find; the id is the owner of the mount. So two containers of one node are two owners, and the second is refused while the first
// has an exclusive volume; the same id asking again joins.
//
// A plugin must answer when Docker asks about anything at all, so nothing here waits for storage longer than the isolator does.
package dockerplugin

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/server"
)

// DefaultSocket makes the plugin known to Docker as "holdfast": a plugin's name is the name of its socket.
const DefaultSocket = "/run/docker/plugins/holdfast.sock"

// DriverOption is the option of `docker volume create` that chooses a driver behind the isolator.
const DriverOption = "driver"

const (
	contentType = "application/vnd.docker.plugins.v1.2+json"
	maxBody     = 1 << 20
	bodyLimit   = 10 * time.Second
	ownerPrefix = "docker:"
	// Docker gives up on Mount and Create after two minutes and on all else after one; an answer with a reason must come before.
	longLimit  = 115 * time.Second
	shortLimit = 55 * time.Second
	// claimLimit bounds how long an inspect waits for the authority.
	claimLimit = time.Second
)

// Options of Handler.
type Options struct {
	Dir string // where the options of volumes are kept that Docker had made
	Log *zap.Logger
}

// Name gives the name by which Docker knows a plugin at a socket.
func Name(socket string) string { return strings.TrimSuffix(filepath.Base(socket), ".sock") }

// Handler answers Docker's calls for one isolator. Served by server.Listen, it learns who calls.
func Handler(s *isolator.Service, o Options) http.Handler {
	p := &plugin{service: s, ledger: ledger{dir: o.Dir}, log: o.Log}
	m := http.NewServeMux()
	m.HandleFunc("POST /Plugin.Activate", func(w http.ResponseWriter, _ *http.Request) {
		// The second word lets an isolator that searches for plugins know one of its kind, itself among them.
		answer(w, http.StatusOK, map[string]any{"Implements": []string{"VolumeDriver"}, "Holdfast": s.NodeUID()})
	})
	handle(m, p, "Capabilities", shortLimit, p.capabilities)
	handle(m, p, "Create", longLimit, p.create)
	handle(m, p, "Remove", shortLimit, p.remove)
	handle(m, p, "Mount", longLimit, p.mount)
	handle(m, p, "Unmount", shortLimit, p.unmount)
	handle(m, p, "Path", shortLimit, p.path)
	handle(m, p, "Get", shortLimit, p.get)
	handle(m, p, "List", shortLimit, p.list)
	return m // unknown calls are 404 in plain text, as Docker expects of them
}

type plugin struct {
	service *isolator.Service
	ledger  ledger
	log     *zap.Logger
}

// request is what any of the calls may carry.
type request struct {
	Name string
	ID   string
	Opts map[string]string
}

type wireVolume struct {
	Name       string
	Mountpoint string         `json:",omitempty"`
	CreatedAt  string         `json:",omitempty"`
	Status     map[string]any `json:",omitempty"`
}

type done struct{}

func handle[Out any](m *http.ServeMux, p *plugin, call string, limit time.Duration, f func(ctx context.Context, in request) (Out, error)) {
	m.HandleFunc("POST /VolumeDriver."+call, func(w http.ResponseWriter, r *http.Request) {
		in, err := read(w, r)
		if err != nil {
			answer(w, http.StatusBadRequest, failure{err.Error()})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		out, err := f(ctx, in)
		if err != nil {
			if !fault.Is(err, fault.NotFound) {
				p.log.Info("docker's call refused", zap.String("call", call), zap.String("volume", in.Name), zap.Error(err))
			}
			answer(w, http.StatusInternalServerError, failure{oneLine(err.Error())})
			return
		}
		answer(w, http.StatusOK, out)
	})
}

type failure struct{ Err string }

func read(w http.ResponseWriter, r *http.Request) (request, error) {
	var in request
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(bodyLimit))
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	_ = conn.SetReadDeadline(time.Time{}) // a mount may take longer than its request
	if err != nil {
		return in, fault.Wrap(fault.Invalid, err, "read the request")
	}
	if len(strings.TrimSpace(string(raw))) == 0 {
		return in, nil // Capabilities and List may come with nothing
	}
	return in, fault.Wrap(fault.Invalid, json.Unmarshal(raw, &in), "the request is not what it should be")
}

func answer(w http.ResponseWriter, status int, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		status, raw = http.StatusInternalServerError, []byte(`{"Err":"the answer could not be encoded"}`)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(raw, '\n'))
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// capabilities says "global" only when a volume of the default driver can be reached from every node.
func (p *plugin) capabilities(context.Context, request) (any, error) {
	scope := "local"
	for _, c := range p.service.Capabilities() {
		if c.Driver == p.service.DefaultDriver() && c.Scope == driver.ScopeCluster {
			scope = "global"
		}
	}
	return map[string]any{"Capabilities": map[string]string{"Scope": scope}}, nil
}

// create is idempotent for the same options, and for none: `docker run -v` knows none. Docker calls it also after any failure of Get, so it trusts nothing: Service.Create asks
// the driver and the authority again.
func (p *plugin) create(ctx context.Context, in request) (done, error) {
	options := maps.Clone(in.Opts)
	chosen := options[DriverOption]
	delete(options, DriverOption)
	ref, err := p.refForCreate(ctx, in.Name, chosen)
	if err != nil {
		return done{}, err
	}
	same, known := p.ledger.same(ref, options)
	if known {
		_, err := p.service.Get(ctx, ref)
		switch {
		case err == nil && (same || len(options) == 0):
			return done{}, nil
		case !same && !fault.Is(err, fault.NotFound):
			return done{}, fault.New(fault.Exists, "create volume %s: it exists and was made with other options", ref)
		}
	}
	if !same { // not known, or left over from a volume that is gone
		if err := p.ledger.keep(ref, options); err != nil {
			return done{}, err
		}
	}
	_, err = p.service.Create(ctx, ref, options)
	if fault.Is(err, fault.Exists) {
		err = p.exists(ctx, ref, options, err)
	}
	if err != nil && !fault.Is(err, fault.Unknown) {
		p.ledger.forget(ref)
	}
	return done{}, err
}

// refForCreate chooses the driver of a new volume. A name that another driver of this node has is refused: Docker could not tell the two
// apart.
func (p *plugin) refForCreate(ctx context.Context, name, chosen string) (volume.Ref, error) {
	if strings.Contains(name, "/") {
		ref, err := p.service.Find(ctx, name)
		if err == nil && chosen != "" && chosen != ref.Driver {
			err = fault.New(fault.Invalid, "create volume %s: its name says driver %s and its options say %s", name, ref.Driver, chosen)
		}
		return ref, err
	}
	found, err := p.service.Find(ctx, name)
	switch {
	case err == nil && (chosen == "" || chosen == found.Driver):
		return found, nil
	case err == nil:
		return volume.Ref{}, fault.New(fault.Exists, "create volume %s: driver %s has one of that name; call this one %s/%s", name, found.Driver, chosen, name)
	case !fault.Is(err, fault.NotFound):
		return volume.Ref{}, err
	}
	if chosen == "" {
		chosen = p.service.DefaultDriver()
	}
	if chosen == "" {
		return volume.Ref{}, fault.New(fault.Invalid, "create volume %s: this node has no default driver; say which by -o %s=NAME", name, DriverOption)
	}
	ref := volume.Ref{Driver: chosen, Name: name}
	return ref, ref.Check()
}

// exists decides about a volume that was there before Docker asked for it: what can be compared must be the same.
func (p *plugin) exists(ctx context.Context, ref volume.Ref, options map[string]string, cause error) error {
	info, err := p.service.Get(ctx, ref)
	if fault.Is(err, fault.NotFound) {
		return fault.Wrap(fault.Conflict, cause, "volume %s is claimed, but its driver does not have it now; nothing is created in its place", ref)
	}
	if err != nil {
		return cause
	}
	for k, v := range options {
		size, perr := volume.ParseSize(v)
		if k != "size" || perr != nil || info.Size == 0 || size != info.Size {
			return fault.Op(cause, "option %s=%s of a volume that exists cannot be granted", k, v)
		}
	}
	return nil
}

func (p *plugin) remove(ctx context.Context, in request) (done, error) {
	ref, err := p.service.Find(ctx, in.Name)
	if err != nil {
		return done{}, err
	}
	if err := p.service.Remove(ctx, ref); err != nil {
		return done{}, err
	}
	p.ledger.forget(ref)
	return done{}, nil
}

type mountpoint struct{ Mountpoint string }

// mount is for one owner, the id that Docker made for this use.
func (p *plugin) mount(ctx context.Context, in request) (mountpoint, error) {
	owner, err := ownerOf(in.ID)
	if err != nil {
		return mountpoint{}, err
	}
	ref, err := p.service.Find(ctx, in.Name)
	if err != nil {
		return mountpoint{}, err
	}
	// Docker has called Create for what is to be made; a mount only mounts.
	path, err := p.service.Mount(ctx, isolator.MountRequest{Ref: ref, Owner: owner, ExplicitCreate: true, TakeGrant: true, Caller: server.CallerOf(ctx)})
	if fault.Is(err, fault.Conflict) {
		if _, owners := p.service.InUse(ref); len(owners) > 0 {
			err = fault.Op(err, "%s can be used by one container at a time, and one of this node has it: %s", ref, err.Error())
		}
	}
	return mountpoint{path}, err
}

// unmount of an id that has mounted nothing, or of a volume that is not there, is success: it is what was asked for.
func (p *plugin) unmount(ctx context.Context, in request) (done, error) {
	owner, err := ownerOf(in.ID)
	if err != nil {
		return done{}, err
	}
	ref, err := p.service.Find(ctx, in.Name)
	if fault.Is(err, fault.NotFound) {
		return done{}, nil
	}
	if err != nil {
		return done{}, err
	}
	outcome, err := p.service.Unmount(ctx, isolator.UnmountRequest{Ref: ref, Owner: owner, Caller: server.CallerOf(ctx)})
	if outcome == isolator.Retrying {
		p.log.Warn("unmount for docker goes on in the background", zap.Stringer("volume", ref), zap.String("owner", owner))
	}
	return done{}, err
}

func (p *plugin) path(ctx context.Context, in request) (mountpoint, error) {
	ref, err := p.service.Find(ctx, in.Name)
	if err != nil {
		return mountpoint{}, err
	}
	path, err := p.service.Path(ctx, ref)
	return mountpoint{path}, err
}

func (p *plugin) get(ctx context.Context, in request) (any, error) {
	ref, err := p.service.Find(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	info, err := p.service.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	v := p.wire(isolator.Named{Ref: ref, Info: info})
	v.Name = in.Name
	p.claim(ctx, ref, v.Status)
	return map[string]any{"Volume": v}, nil
}

// claim puts into the status who may have the volume mounted: the authority's word, or that it could not be had in time. `docker volume inspect`
// shows it.
func (p *plugin) claim(ctx context.Context, ref volume.Ref, status map[string]any) {
	ctx, cancel := context.WithTimeout(ctx, claimLimit)
	defer cancel()
	c, err := p.service.Claim(ctx, ref)
	switch {
	case fault.Is(err, fault.NotFound):
		status["claim"] = "none"
		return
	case err != nil:
		status["claim"] = oneLine("unknown: " + err.Error())
		return
	case c.Shared:
		status["claim"] = "shared"
		return
	}
	status["claim"], status["epoch"] = string(c.State), uint64(c.Epoch)
	if c.State == lease.Free {
		return
	}
	status["holder"], status["node"], status["here"] = c.Owner, c.Node, c.Node == p.service.NodeUID()
	if !c.Since.IsZero() {
		status["since"] = c.Since.UTC().Format(time.RFC3339)
	}
	if c.Revoke {
		status["revoked"] = true
	}
}

func (p *plugin) list(ctx context.Context, _ request) (any, error) {
	all, err := p.service.Named(ctx)
	if err != nil {
		return nil, err
	}
	times := map[string]int{}
	for _, n := range all {
		times[n.Ref.Name]++
	}
	out := make([]wireVolume, 0, len(all))
	for _, n := range all {
		v := p.wire(n)
		if times[n.Ref.Name] > 1 {
			v.Name = n.Ref.String()
		}
		out = append(out, v)
	}
	return map[string]any{"Volumes": out}, nil
}

func (p *plugin) wire(n isolator.Named) wireVolume {
	v := wireVolume{Name: n.Ref.Name, Status: map[string]any{"driver": n.Ref.Driver}}
	if n.UID != "" {
		v.Status["uid"] = n.UID
	}
	if n.Size > 0 {
		v.Status["size"] = n.Size.String()
	}
	if n.Complaint != "" {
		v.Status["complaint"] = n.Complaint
	}
	if len(n.Topology) > 0 {
		v.Status["topology"] = n.Topology
	}
	if !n.Created.IsZero() {
		v.CreatedAt = n.Created.UTC().Format(time.RFC3339)
	}
	path, owners := p.service.InUse(n.Ref)
	if v.Mountpoint = path; path != "" {
		v.Status["usedBy"] = owners
	}
	return v
}

// ownerOf makes an owner of the id of a use. Docker's ids are 64 hex digits; others are taken as long as they are one short word.
func ownerOf(id string) (string, error) {
	if id == "" || len(id) > 128 || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", fault.New(fault.Invalid, "the id of a mount must be one word of at most 128 characters")
	}
	return ownerPrefix + id, nil
}
