package store_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/bolt"
	"github.com/holdfast-io/holdfast/framework/store/storetest"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

func open(t *testing.T, dir, cluster string) *store.Store {
	t.Helper()
	b, err := bolt.Open(dir, bolt.Options{Wait: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	s, err := store.Open(context.Background(), b, cluster, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Lead(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

func commit(t *testing.T, s *store.Store, writes ...state.Write) {
	t.Helper()
	ops, err := s.Encode(writes)
	if err != nil {
		t.Fatal(err)
	}
	var b store.Batch
	b.Add(ops)
	if err := s.Commit(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
}

// sample is one record of every kind, no field empty that has a meaning.
func sample(cluster string) []state.Write {
	now := time.Date(2026, 11, 21, 5, 0, 0, 123e6, time.UTC)
	healthy := true
	return []state.Write{
		{Kind: state.KindFramework, Value: &state.Framework{Cluster: cluster, ID: "fw-0000", Rev: 2}},
		{Kind: state.KindApp, ID: "/prod/db", Value: &state.App{ID: "/prod/db", Version: "2026-11-21T05:00:00.123Z", Instances: 3, Restart: 1, LastScalingAt: now,
			LastTaskFailure: &state.TaskFailure{Instance: "prod_db.2", State: "TASK_FAILED", At: now}, Rev: 4}},
		{Kind: state.KindDef, ID: "/prod/db 2026-11-21T05:00:00.123Z", Value: &state.Def{App: "/prod/db", Version: "2026-11-21T05:00:00.123Z",
			Spec: state.Spec{Cmd: "x", CPUs: .5, Volumes: []state.Mount{{Kind: state.MountExternal, ContainerPath: "data", Driver: "pool", Pattern: "db", Size: volume.GiB}}}, Source: json.RawMessage(`{"id":"/prod/db"}`)}},
		{Kind: state.KindInstance, ID: "prod_db.2", Value: &state.Instance{ID: "prod_db.2", App: "/prod/db", Ordinal: 2, Goal: state.GoalRun, Phase: state.PhaseRunning, Since: now, Incarnation: 17,
			Run: &state.Run{Task: "prod_db.2.17-3f9c2a", Healthy: &healthy, Ports: []int{31000}, Claims: []state.Grant{{Volume: "v", Epoch: 7, Nonce: "n", Done: true}}, StagedAt: now}, Rev: 9}},
		{Kind: state.KindVolume, ID: "0190-uid", Value: &state.Volume{UID: "0190-uid", Ref: volume.Ref{Driver: "pool", Name: "db-2"}, App: "/prod/db", Instance: "prod_db.2", Policy: "lease",
			Phase: state.VolumeReady, Epoch: 7, CreatedAt: now, Rev: 3}},
		{Kind: state.KindDeployment, ID: "6abf0e16", Value: &state.Deployment{ID: "6abf0e16", Apps: []state.AppID{"/prod/db"}, CreatedAt: now,
			Steps: []state.DeploymentStep{{Actions: []state.DeploymentAction{{Action: "ScaleApplication", App: "/prod/db"}}}}, Rev: 1}},
		{Kind: state.KindOperation, ID: "0190-op", Value: &state.Operation{ID: "0190-op", Kind: state.OpClone, Ref: volume.Ref{Driver: "pool", Name: "pgdata-2"}, Volume: "0190-uid",
			Target: &state.OperationTarget{UID: "0190-new", Name: "copy"}, Phase: state.OperationAsked, Node: "n1", Progress: []byte(`{"doneBytes":5}`), CreatedAt: now, WakeAt: now, Rev: 2}},
		{Kind: state.KindGroup, ID: "/prod", Value: &state.AppGroup{ID: "/prod", Dependencies: []state.AppID{"/base"}, Version: "2026-11-21T05:00:00.123Z", Rev: 1}},
	}
}

func TestRecordsComeBack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, storetest.A)
	want := sample(storetest.A)
	commit(t, s, append(want, state.Write{Kind: state.KindOffer, ID: "O1", Value: &state.Offer{ID: "O1"}})...) // what is only seen is not stored
	got, bad, err := s.Load(context.Background())
	if err != nil || len(bad) > 0 {
		t.Fatal(err, bad)
	}
	byID := func(ws []state.Write) map[string]any {
		m := map[string]any{}
		for _, w := range ws {
			m[string(w.Kind)+" "+w.ID] = w.Value
		}
		return m
	}
	if !reflect.DeepEqual(byID(got), byID(want)) {
		t.Errorf("came back as %+v", got)
	}
	commit(t, s, state.Write{Kind: state.KindApp, ID: "/prod/db"}, state.Write{Kind: state.KindInstance, ID: "never"})
	got, _, _ = s.Load(context.Background())
	if len(got) != len(want)-1 {
		t.Errorf("%d records after a removal, want %d", len(got), len(want)-1)
	}
}

// TestKeysAndHeaders holds the form that other versions rely on.
func TestKeysAndHeaders(t *testing.T) {
	s := open(t, t.TempDir(), storetest.A)
	ops, err := s.Encode(sample(storetest.A))
	if err != nil {
		t.Fatal(err)
	}
	heads := map[string]string{}
	for _, op := range ops {
		head, _, _ := strings.Cut(string(op.Value), `,"id"`)
		head, _, _ = strings.Cut(head, `,"uid"`)
		head, _, _ = strings.Cut(head, `,"app"`)
		head, _, _ = strings.Cut(head, `,"cluster"`)
		heads[strings.TrimPrefix(op.Key, "/holdfast/"+storetest.A+"/v1/")] = head
		var rec struct {
			V    int
			Kind string
			Rev  uint64
		}
		if err := json.Unmarshal(op.Value, &rec); err != nil || rec.V != 1 || rec.Kind == "" || rec.Rev == 0 {
			t.Errorf("%s: %s", op.Key, op.Value)
		}
	}
	want := map[string]string{
		"meta/framework": `{"v":1,"kind":"framework"`,
		"apps/prod%2Fdb": `{"v":1,"kind":"app"`,
		"defs/prod%2Fdb/2026-11-21T05:00:00.123Z":       `{"v":1,"kind":"def","rev":1`,
		"instances/" + hex2("prod_db.2") + "/prod_db.2": `{"v":1,"kind":"instance"`,
		"volumes/" + hex2("0190-uid") + "/0190-uid":     `{"v":1,"kind":"volume"`,
		"deployments/6abf0e16":                          `{"v":1,"kind":"deployment"`,
		"operations/0190-op":                            `{"v":1,"kind":"operation"`,
		"groups/%2Fprod":                                `{"v":1,"kind":"group"`,
	}
	if !maps.Equal(heads, want) {
		t.Errorf("keys and headers\n%v\nwant\n%v", heads, want)
	}
}

var rewrite = flag.Bool("rewrite", false, "write the state of this version into testdata; never for a version that was released")

// TestReleasedFormat opens the records that version 1 wrote, kept as they were: whoever changes a field must still read them.
func TestReleasedFormat(t *testing.T) {
	const file = "testdata/v1.jsonl"
	if *rewrite {
		s := open(t, t.TempDir(), storetest.A)
		ops, err := s.Encode(sample(storetest.A))
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for _, op := range ops {
			fmt.Fprintf(&out, "%s %s\n", strings.TrimPrefix(op.Key, store.Prefix(storetest.A)), op.Value)
		}
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	records := map[string]string{}
	for line := range strings.Lines(string(kept)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		records[key] = value
	}
	dir := t.TempDir()
	open(t, dir, storetest.A).Close()
	writeRaw(t, dir, records)
	s := open(t, dir, "")
	got, bad, err := s.Load(context.Background())
	if err != nil || len(bad) > 0 {
		t.Fatal(err, bad)
	}
	want := map[string]any{}
	for _, w := range sample(storetest.A) {
		want[string(w.Kind)+" "+w.ID] = w.Value
	}
	for _, w := range got {
		if !reflect.DeepEqual(want[string(w.Kind)+" "+w.ID], w.Value) {
			t.Errorf("%s %s reads as %+v", w.Kind, w.ID, w.Value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
}

// hex2 is the shard as the released format has it: it must never change.
func hex2(id string) string { return map[string]string{"prod_db.2": "08", "0190-uid": "fe"}[id] }

func TestUnreadableRecordsAreNamedAndKept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, storetest.A)
	commit(t, s, sample(storetest.A)...)
	all := map[string]string{}
	s.Close()
	hostile := map[string]string{
		"apps/new":                `{"v":2,"kind":"app","id":"/new"}`,
		"apps/kind":               `{"v":1,"kind":"gizmo","id":"/kind"}`,
		"apps/old":                `{"v":0,"kind":"app","id":"/old"}`,
		"apps/elsewhere":          `{"v":1,"kind":"app","id":"/there"}`,
		"apps/other":              `{"v":1,"kind":"instance","id":"other.0"}`,
		"apps/noid":               `{"v":1,"kind":"app"}`,
		"apps/types":              `{"v":1,"kind":"app","id":"/types","instances":"three"}`,
		"instances/00/torn.0":     `{"v":1,"kind":"instance","id":"torn.0`,
		"instances/00/empty.0":    ``,
		"instances/00/binary.0":   "\x00\xff\xfe",
		"instances/00/deep.0":     strings.Repeat("[", 100000),
		"volumes/00/null":         `null`,
		"volumes/00/array":        `[1,2]`,
		"shelves/fast":            `{"v":1,"kind":"shelf","name":"fast"}`,
		"something/quite/unknown": `{"v":1,"kind":"x"}`,
	}
	writeRaw(t, dir, hostile)
	s = open(t, dir, "")
	got, bad, err := s.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(sample("")) {
		t.Errorf("%d good records, want %d", len(got), len(sample("")))
	}
	var named []string
	for _, b := range bad {
		named = append(named, strings.TrimPrefix(b.Key, store.Prefix(storetest.A)))
	}
	slices.Sort(named)
	if want := slices.Sorted(maps.Keys(hostile)); !slices.Equal(named, want) {
		t.Errorf("named %q, want %q", named, want)
	}
	// Nothing is written over them.
	if _, err := s.Encode([]state.Write{{Kind: state.KindApp, ID: "/new", Value: &state.App{ID: "/new"}}}); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "newer") {
		t.Errorf("write over a record that cannot be read: %v", err)
	}
	if _, err := s.Encode([]state.Write{{Kind: state.KindApp, ID: "/new"}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("removal of a record that cannot be read: %v", err)
	}
	commit(t, s, state.Write{Kind: state.KindApp, ID: "/fine", Value: &state.App{ID: "/fine", Rev: 1}})
	s.Close()
	readRaw(t, dir, all)
	for k, v := range hostile {
		if all[k] != v {
			t.Errorf("record %s was changed to %q", k, all[k])
		}
	}
}

func TestFrameworkRecordThatCannotBeReadIsFatal(t *testing.T) {
	for name, raw := range map[string]string{"newer": `{"v":9,"kind":"framework","cluster":"x"}`, "torn": `{"v":1,"ki`, "other cluster": `{"v":1,"kind":"framework","cluster":"` + storetest.B + `"}`} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			open(t, dir, storetest.A).Close()
			writeRaw(t, dir, map[string]string{"meta/framework": raw})
			s := open(t, dir, "")
			if _, _, err := s.Load(context.Background()); !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "meta/framework") {
				t.Errorf("load: %v", err)
			}
		})
	}
}

func TestClusterIsMintedOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "")
	first := s.Cluster()
	s.Close()
	s = open(t, dir, "")
	if s.Cluster() != first || len(first) != 36 {
		t.Errorf("cluster %s, then %s", first, s.Cluster())
	}
	s.Close()
	b, err := bolt.Open(dir, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := store.Open(context.Background(), b, storetest.B, "x"); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), first) {
		t.Errorf("another cluster in the same directory: %v", err)
	}
	if _, err := store.Open(context.Background(), b, "../x", "x"); !fault.Is(err, fault.Invalid) {
		t.Errorf("cluster ../x: %v", err)
	}
	if _, err := b.Lead(context.Background(), storetest.B, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(context.Background(), b, "", "x"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "--cluster") {
		t.Errorf("two clusters and no choice: %v", err)
	}
}

// noise is text that does not get smaller.
func noise(n int) string {
	raw := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range raw {
		raw[i] = byte('!' + r.IntN(90))
	}
	return string(raw)
}

func TestEncodeRefuses(t *testing.T) {
	s := open(t, t.TempDir(), storetest.A)
	for name, w := range map[string]state.Write{
		"another type": {Kind: state.KindApp, ID: "/a", Value: &state.Instance{ID: "/a"}},
		"another id":   {Kind: state.KindApp, ID: "/a", Value: &state.App{ID: "/b"}},
		"no id":        {Kind: state.KindApp, Value: &state.App{}},
		"definition":   {Kind: state.KindDef, ID: "/a"},
		"huge":         {Kind: state.KindDef, ID: "/a v", Value: &state.Def{App: "/a", Version: "v", Spec: state.Spec{Cmd: noise(2 * store.MaxRecord)}}},
		"long id":      {Kind: state.KindDeployment, ID: strings.Repeat("d", 2000)},
	} {
		if _, err := s.Encode([]state.Write{w}); !fault.Is(err, fault.Internal) && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Ids of any kind stay one segment.
	for _, id := range []string{".", "..", "/../../etc", "/a b", "/ä", "/%2F", "/a/b/c", "/" + strings.Repeat("x", 200)} {
		ops, err := s.Encode([]state.Write{{Kind: state.KindApp, ID: id, Value: &state.App{ID: state.AppID(id)}}})
		if err != nil || strings.Count(ops[0].Key, "/") != 5 {
			t.Errorf("app %q: %v %v", id, ops, err)
		}
	}
}

func TestBatch(t *testing.T) {
	var b store.Batch
	op := func(k, v string) store.Op { return store.Op{Key: k, Value: []byte(v)} }
	b.Add([]store.Op{op("a", "1"), op("b", "22")})
	b.Add([]store.Op{op("a", "333")})
	if b.Writes() != 2 || b.Bytes() != 2+3+2 {
		t.Errorf("%d writes, %d bytes", b.Writes(), b.Bytes())
	}
	l := store.Limits{Writes: 3, Bytes: 10}
	if !b.Room([]store.Op{op("c", "1")}, l) || b.Room([]store.Op{op("c", "1"), op("d", "")}, l) || b.Room([]store.Op{op("c", "1234")}, l) {
		t.Error("room is counted wrongly")
	}
	b.Reset()
	if b.Writes() != 0 || b.Bytes() != 0 {
		t.Error("not empty after Reset")
	}
	b.Add([]store.Op{op("a", "1")})
	if b.Writes() != 1 {
		t.Error("Add after Reset")
	}
}

// writeRaw writes records past all checks.
func writeRaw(t *testing.T, dir string, records map[string]string) {
	t.Helper()
	raw(t, dir, func(bk *bbolt.Bucket) error {
		for k, v := range records {
			if err := bk.Put([]byte(store.Prefix(storetest.A)+k), []byte(v)); err != nil {
				return err
			}
		}
		return nil
	})
}

func readRaw(t *testing.T, dir string, into map[string]string) {
	t.Helper()
	raw(t, dir, func(bk *bbolt.Bucket) error {
		return bk.ForEach(func(k, v []byte) error {
			into[strings.TrimPrefix(string(k), store.Prefix(storetest.A))] = string(v)
			return nil
		})
	})
}

func raw(t *testing.T, dir string, f func(*bbolt.Bucket) error) {
	t.Helper()
	db, err := bbolt.Open(fmt.Sprintf("%s/%s", dir, bolt.FileName), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bbolt.Tx) error { return f(tx.Bucket([]byte("records"))) }); err != nil {
		t.Fatal(err)
	}
}
