package v1

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/show"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Operations on volumes. What changes something is begun, and answered with the operation (202), whose end the caller waits for under
// /v1/operations/{id}, or here with ?wait=SECONDS. What only asks a node waits for its answer.

const (
	longestWait = 30 * time.Second // an answer must be there in desk.AnswerTime
	// nobodyWait is how long a question waits for a node that could answer it.
	nobodyWait = 3 * time.Second
	lookAgain  = 50 * time.Millisecond
)

func operationRoutes(t *desk.Table, s *api) {
	get, post, del := http.MethodGet, http.MethodPost, http.MethodDelete
	t.Handle(get, "/v1/volumes/{id:.+}/snapshots", "lists the snapshots of a volume", s.askVolume(state.OpSnapshots))
	t.Handle(post, "/v1/volumes/{id:.+}/snapshots", "makes a snapshot of a volume: {name}", s.begin(s.snapshot), "wait")
	t.Handle(del, "/v1/volumes/{id:.+}/snapshots/{snapshot}", "removes a snapshot", s.begin(s.removeSnapshot), "wait")
	t.Handle(post, "/v1/volumes/{id:.+}/clone", "makes a volume that begins as a copy: {name, snapshot, size}", s.begin(s.clone), "wait")
	t.Handle(post, "/v1/volumes/{id:.+}/resize", "makes a volume larger: {size}", s.begin(s.resize), "wait")
	t.Handle(get, "/v1/volumes/{id:.+}/usage", "tells how full a volume is", s.askVolume(state.OpUsage))
	t.Handle(post, "/v1/volumes/{id:.+}/check", "looks a volume's file system over: {repair}", s.begin(s.check), "wait")
	t.Handle(get, "/v1/volumes/{id:.+}/backups", "lists the backups of a volume", s.askBackups, "repository")
	t.Handle(post, "/v1/volumes/{id:.+}/backups", "backs a volume up: {repository, snapshot, verify}", s.begin(s.backup), "wait")
	t.Handle(get, "/v1/backups", "lists backups", s.askBackups, "repository", "volume")
	t.Handle(del, "/v1/backups/{repository}/{backup}", "removes a backup", s.begin(s.removeBackup), "wait")
	t.Handle(post, "/v1/restore", "makes a volume from a backup: {repository, backup, from, driver, name, size, user, verify}", s.begin(s.restore), "wait")
	t.Handle(get, "/v1/bin", "lists removed volumes that can come back", s.askBin, "driver")
	t.Handle(post, "/v1/bin/undelete", "takes a volume out of the bin: {driver, name, uid}", s.begin(s.undelete), "wait")
	t.Handle(post, "/v1/bin/purge", "deletes a volume in the bin for good: {driver, name, uid}", s.begin(s.purge), "wait")
	t.Handle(get, "/v1/operations", "lists the operations on volumes under way and of the last day", s.operations)
	t.Handle(get, "/v1/operations/{id}", "gives an operation, at its end or after the time to wait", s.operation, "wait")
	t.Handle(del, "/v1/operations/{id}", "cancels an operation", s.cancelOperation)
}

// body reads a JSON object into out, strictly; an empty body is an empty object.
func body(r *http.Request, out any) error {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(out); err != nil {
		return fault.New(fault.Invalid, "the body is not what it should be: %v", err)
	}
	return nil
}

func invalid(field, format string, args ...any) error {
	err := fault.New(fault.Invalid, format, args...)
	return fault.WithDetails(fault.Invalid, field+": "+err.Error(), fault.Detail{Path: "/" + field, Errors: []string{err.Error()}})
}

// size reads a size; "" is 0.
func size(field, text string) (volume.Bytes, error) {
	if text == "" {
		return 0, nil
	}
	n, err := volume.ParseSize(text)
	if err != nil {
		return 0, invalid(field, "%v", err)
	}
	if n <= 0 {
		return 0, invalid(field, "must be more than nothing")
	}
	return n, nil
}

// ofVolume finds the volume in the path.
func (s *api) ofVolume(r *http.Request) (state.Operation, error) {
	var o state.Operation
	var err error
	s.Core.View(func(st *state.State) {
		var v *state.Volume
		if v, err = show.FindVolume(st, mux.Vars(r)["id"]); err == nil {
			o.Volume, o.Ref = v.UID, v.Ref
		}
	})
	return o, err
}

func (s *api) snapshot(r *http.Request) (state.Operation, error) {
	var in struct{ Name string }
	o, err := s.ofVolume(r)
	if err == nil {
		err = body(r, &in)
	}
	o.Kind, o.Snapshot = state.OpSnapshot, in.Name
	if o.Snapshot == "" {
		o.Snapshot = s.Now().UTC().Format("snap-20060102T150405Z")
	}
	return o, err
}

func (s *api) removeSnapshot(r *http.Request) (state.Operation, error) {
	o, err := s.ofVolume(r)
	o.Kind, o.Snapshot = state.OpRemoveSnapshot, mux.Vars(r)["snapshot"]
	return o, err
}

func (s *api) clone(r *http.Request) (state.Operation, error) {
	var in client.CloneRequest
	o, err := s.ofVolume(r)
	if err == nil {
		err = body(r, &in)
	}
	if err != nil {
		return o, err
	}
	if in.Name == "" {
		return o, invalid("name", "the clone needs a name")
	}
	o.Kind, o.Snapshot, o.Target = state.OpClone, in.Snapshot, &state.OperationTarget{Name: in.Name}
	o.Target.Size, err = size("size", in.Size)
	return o, err
}

func (s *api) resize(r *http.Request) (state.Operation, error) {
	var in struct{ Size string }
	o, err := s.ofVolume(r)
	if err == nil {
		err = body(r, &in)
	}
	if err != nil {
		return o, err
	}
	if in.Size == "" {
		return o, invalid("size", `say how large, e.g. "20" (GiB) or "500MiB"`)
	}
	o.Kind = state.OpResize
	o.Size, err = size("size", in.Size)
	return o, err
}

func (s *api) check(r *http.Request) (state.Operation, error) {
	var in struct{ Repair bool }
	o, err := s.ofVolume(r)
	if err == nil {
		err = body(r, &in)
	}
	o.Kind, o.Repair = state.OpCheck, in.Repair
	return o, err
}

func (s *api) backup(r *http.Request) (state.Operation, error) {
	var in client.BackupRequest
	o, err := s.ofVolume(r)
	if err == nil {
		err = body(r, &in)
	}
	if err == nil {
		err = s.knownRepository(in.Repository)
	}
	o.Kind, o.Repository, o.Snapshot, o.Verify = state.OpBackup, in.Repository, in.Snapshot, in.Verify
	return o, err
}

// knownRepository refuses a repository that no node has ever published: nothing would come of waiting. A node that is away counts.
func (s *api) knownRepository(name string) error {
	names := map[string]bool{}
	s.Core.View(func(st *state.State) {
		for _, n := range st.Nodes {
			for _, r := range n.Repositories {
				names[r] = true
			}
		}
	})
	list := slices.Sorted(maps.Keys(names))
	switch {
	case names[name]:
		return nil
	case len(list) == 0:
		return invalid("repository", "no node has a repository for backups: start the isolators with --backup-config FILE")
	case name == "":
		return invalid("repository", "say which; there are: %s", strings.Join(list, ", "))
	}
	return invalid("repository", "no node has repository %.60q; there are: %s", name, strings.Join(list, ", "))
}

func (s *api) removeBackup(r *http.Request) (state.Operation, error) {
	v := mux.Vars(r)
	return state.Operation{Kind: state.OpRemoveBackup, Repository: v["repository"], Backup: v["backup"]}, nil
}

func (s *api) restore(r *http.Request) (state.Operation, error) {
	var in client.RestoreRequest
	if err := body(r, &in); err != nil {
		return state.Operation{}, err
	}
	o := state.Operation{Kind: state.OpRestore, Repository: in.Repository, Backup: in.Backup, Verify: in.Verify, Ref: volume.Ref{Driver: in.Driver},
		Target: &state.OperationTarget{Name: in.Name, User: in.User}}
	if o.Backup == "" {
		o.Backup = "latest"
	}
	switch {
	case in.Repository == "":
		return o, s.knownRepository("")
	case in.Driver == "":
		return o, invalid("driver", "say which driver is to have the new volume")
	case in.Name == "":
		return o, invalid("name", "the new volume needs a name")
	case o.Backup == "latest" && in.From == "":
		return o, invalid("from", "the latest backup of which volume? say driver/name, or give a backup's id")
	}
	if in.From != "" {
		from, err := refOf(in.From)
		if err != nil {
			return o, invalid("from", "%v", err)
		}
		if from.Driver != in.Driver {
			return o, invalid("from", "the latest backup of %s is looked for by its own driver %s: give the backup's id to restore it into driver %s", from, from.Driver, in.Driver)
		}
		o.Ref = from
	}
	if err := s.knownRepository(in.Repository); err != nil {
		return o, err
	}
	var err error
	o.Target.Size, err = size("size", in.Size)
	return o, err
}

// refOf reads driver/name.
func refOf(text string) (volume.Ref, error) {
	cut := strings.LastIndexByte(text, '/')
	if cut <= 0 {
		return volume.Ref{}, fault.New(fault.Invalid, "%q is not driver/name", text)
	}
	ref := volume.Ref{Driver: text[:cut], Name: text[cut+1:]}
	return ref, ref.Check()
}

func fromBin(r *http.Request, kind string) (state.Operation, error) {
	var in client.BinRequest
	if err := body(r, &in); err != nil {
		return state.Operation{}, err
	}
	o := state.Operation{Kind: kind, Ref: volume.Ref{Driver: in.Driver, Name: in.Name}, BinUID: in.UID}
	if in.Driver == "" || in.Name == "" {
		return o, invalid("name", "say which volume by driver and name")
	}
	return o, o.Ref.Check()
}

func (s *api) undelete(r *http.Request) (state.Operation, error) {
	o, err := fromBin(r, state.OpUndelete)
	o.Target = &state.OperationTarget{Name: o.Ref.Name}
	return o, err
}

func (s *api) purge(r *http.Request) (state.Operation, error) { return fromBin(r, state.OpPurge) }

// begin gives the handler that begins an operation.
func (s *api) begin(f func(r *http.Request) (state.Operation, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		wait, err := waitOf(r)
		var o state.Operation
		if err == nil {
			o, err = f(r)
		}
		if err == nil {
			err = checkWords(o)
		}
		var id string
		if err == nil {
			id, err = s.start(r, o)
		}
		if err != nil {
			s.Fail(w, r, err)
			return
		}
		out, err := s.await(r.Context(), id, wait, 0)
		if err == nil && wait > 0 {
			err = out.Err()
		}
		if err != nil {
			s.Fail(w, r, err)
			return
		}
		status := http.StatusAccepted
		if out.Over() {
			status = http.StatusOK
		}
		s.JSON(w, r, status, out)
	}
}

func (s *api) start(r *http.Request, o state.Operation) (string, error) {
	ctx, cancel := desk.Limited(r)
	defer cancel()
	reply, err := s.Do(ctx, scheduler.StartOperation{Operation: o})
	return reply.Operation, err
}

// await gives an operation at its end, or after the time to wait. With nobody it gives up when no node was found for so long.
func (s *api) await(ctx context.Context, id string, wait, nobody time.Duration) (client.Operation, error) {
	begun := time.Now()
	for {
		var out client.Operation
		var err error
		s.Core.View(func(st *state.State) {
			if o := st.Operations[id]; o != nil {
				out = show.Operation(st, o)
				return
			}
			err = fault.New(fault.NotFound, "operation %s does not exist; it may have ended more than a day ago", id)
		})
		passed := time.Since(begun)
		if err != nil || out.Over() || passed >= wait || nobody > 0 && out.Phase == string(state.OperationWaiting) && passed >= nobody {
			return out, err
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return out, nil
		}
	}
}

func waitOf(r *http.Request) (time.Duration, error) {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fault.New(fault.Invalid, "wait %.40q is not a number of seconds", text)
	}
	return min(time.Duration(n)*time.Second, longestWait), nil
}

// ask has a node answer a question, and sends what it says.
func (s *api) ask(w http.ResponseWriter, r *http.Request, o state.Operation) {
	id, err := s.start(r, o)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	out, err := s.await(r.Context(), id, s.Patience, nobodyWait)
	if err == nil {
		err = out.Err()
	}
	if err == nil && !out.Over() {
		ctx, cancel := desk.Limited(r)
		_, _ = s.Do(ctx, scheduler.CancelOperation{ID: id})
		cancel()
		because := out.Because
		if because == "" {
			because = "node " + out.Hostname + " has not answered"
		}
		err = fault.New(fault.Unavailable, "%s: %s", o.Kind, because)
	}
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.JSON(w, r, http.StatusOK, answer(o.Kind, out.Result))
}

func (s *api) askVolume(kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		o, err := s.ofVolume(r)
		if err != nil {
			s.Fail(w, r, err)
			return
		}
		o.Kind = kind
		s.ask(w, r, o)
	}
}

// askBackups lists backups; of a volume that is gone too, which is when they are wanted most.
func (s *api) askBackups(w http.ResponseWriter, r *http.Request) {
	o := state.Operation{Kind: state.OpBackups, Repository: r.URL.Query().Get("repository")}
	var err error
	if id, ok := mux.Vars(r)["id"]; ok {
		var v state.Operation
		v, err = s.ofVolume(r)
		o.Ref = v.Ref
		if fault.Is(err, fault.NotFound) && strings.Contains(id, "/") {
			o.Ref, err = refOf(id)
		}
	} else if text := r.URL.Query().Get("volume"); text != "" {
		o.Ref, err = refOf(text)
	}
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.ask(w, r, o)
}

func (s *api) askBin(w http.ResponseWriter, r *http.Request) {
	o := state.Operation{Kind: state.OpBin, Ref: volume.Ref{Driver: r.URL.Query().Get("driver")}}
	if o.Ref.Driver != "" {
		if err := volume.CheckDriver(o.Ref.Driver); err != nil {
			s.Fail(w, r, err)
			return
		}
	}
	s.ask(w, r, o)
}

func (s *api) operations(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, "operations", show.Operations)
}

func (s *api) operation(w http.ResponseWriter, r *http.Request) {
	wait, err := waitOf(r)
	var out client.Operation
	if err == nil {
		out, err = s.await(r.Context(), mux.Vars(r)["id"], wait, 0)
	}
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.JSON(w, r, http.StatusOK, out)
}

func (s *api) cancelOperation(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := desk.Limited(r)
	defer cancel()
	id := mux.Vars(r)["id"]
	_, err := s.Do(ctx, scheduler.CancelOperation{ID: id})
	var out client.Operation
	if err == nil {
		out, err = s.await(r.Context(), id, 0, 0)
	}
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.JSON(w, r, http.StatusOK, out)
}
