package marathon

import (
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

func volumeApp(external, mode string) string {
	return fmt.Sprintf(`{"id":"a","cmd":"xx","instances":3,"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":%q,"external":%s}]}}`, mode, external)
}

var classes = Options{Role: "holdfast", Class: func(name string) *definition.Class {
	if name != "fast" {
		return nil
	}
	return &definition.Class{Name: "fast", Driver: "pool", Policy: "operator", Options: map[string]string{"iops": "3", "kind": "ssd"}, Size: int64(2 * volume.GiB), Zones: []string{"z1"}, Delete: true, Encrypt: true}
}}

// What a class says is copied into the app's spec, what the app says itself wins, and only the class's name is printed.
func TestClass(t *testing.T) {
	a, _, err := Parse([]byte(volumeApp(`{"name":"v-{ordinal}","class":"fast","options":{"dvdi/kind":"hdd"},"snapshot":{"volume":"v-{ordinal}","name":"s1"},"retain":{"onScaleDown":"delete","onDelete":"keep"}}`, "RW")), classes)
	if err != nil {
		t.Fatal(err, fault.DetailsOf(err))
	}
	if err := a.Unsupported(); err != nil {
		t.Fatal(err)
	}
	s, err := a.Spec()
	if err != nil {
		t.Fatal(err)
	}
	m := s.Volumes[0]
	if m.Driver != "pool" || m.Policy != "operator" || m.Options["iops"] != "3" || m.Options["kind"] != "hdd" || m.Options["encrypt"] != "true" || m.Size != 2*volume.GiB ||
		len(m.Zones) != 1 || !m.DeleteOnScaleDown || m.DeleteOnRemove || m.From == nil || m.From.Snapshot != "s1" || m.Class != "fast" || !m.Encrypt {
		t.Errorf("%+v", m)
	}
	want := `{"containerPath":"d","external":{"name":"v-{ordinal}","provider":"dvdi","options":{"dvdi/kind":"hdd"},"shared":false,"class":"fast","snapshot":{"volume":"v-{ordinal}","name":"s1"},"retain":{"onScaleDown":"delete","onDelete":"keep"}},"mode":"RW"}`
	if got := string(a.JSON()); !strings.Contains(got, want) {
		t.Errorf("printed %s", got)
	}
	if again, err := Stored(a.JSON()); err != nil || string(again.JSON()) != string(a.JSON()) {
		t.Errorf("stored and read: %v", err)
	}
}

// What a driver calls encrypt is its own affair; the field is a demand.
func TestEncrypt(t *testing.T) {
	for external, want := range map[string]bool{
		`{"name":"v","class":"fast"}`:                                                               true,
		`{"name":"v","class":"fast","encrypt":false}`:                                               false,
		`{"name":"v","class":"fast","options":{"dvdi/encrypt":"no"}}`:                               false,
		`{"name":"v","provider":"dvdi","options":{"dvdi/driver":"pool"}}`:                           false,
		`{"name":"v","provider":"dvdi","options":{"dvdi/driver":"pool"},"encrypt":true}`:            true,
		`{"name":"v","provider":"dvdi","options":{"dvdi/driver":"portworx","dvdi/encrypt":"true"}}`: false,
	} {
		a, _, err := Parse([]byte(volumeApp(external, "RW")), classes)
		if err != nil {
			t.Fatalf("%s: %v %v", external, err, fault.DetailsOf(err))
		}
		s, err := a.Spec()
		if err != nil {
			t.Fatal(err)
		}
		if m := s.Volumes[0]; m.Encrypt != want || want && m.Options["encrypt"] != "true" {
			t.Errorf("%s: %+v", external, m)
		}
		bare := strings.Replace(volumeApp(external, "RW"), "{", `{"unprotected":true,`, 1)
		_, _, err = Parse([]byte(bare), classes)
		if want != hasDetail(err, "/container/volumes(0)/external/encrypt", "does not go with unprotected: on a node without isolator nobody sees to it that a driver encrypts") {
			t.Errorf("%s: unprotected: %v %v", external, err, fault.DetailsOf(err))
		}
	}
}

func TestVolumeExtensions(t *testing.T) {
	const base = `"name":"v","provider":"dvdi","options":{"dvdi/driver":"pool"}`
	for _, c := range []struct{ external, mode, path, text string }{
		{`{"name":"v","class":"slow"}`, "RW", "/container/volumes(0)/external/class", `class "slow" does not exist`},
		{`{"name":"v","class":"fast","options":{"dvdi/driver":"other"}}`, "RW", `/container/volumes(0)/external/options("dvdi/driver")`, `class fast is of driver "pool", not "other"`},
		{`{` + base + `,"shared":false,"accessMode":"MULTI_NODE_MULTI_WRITER"}`, "RW", "/container/volumes(0)/external/accessMode", "MULTI_NODE_MULTI_WRITER does not go with shared: false"},
		{`{` + base + `,"accessMode":"MULTI_NODE_READER_ONLY"}`, "RW", "/container/volumes(0)/mode", "must be RO with accessMode MULTI_NODE_READER_ONLY"},
		{`{` + base + `,"accessMode":"MULTI_NODE_READER_ONLY"}`, "RO", "", ""},
		{`{` + base + `,"snapshot":{"volume":"w"}}`, "RW", "/container/volumes(0)/external/snapshot/name", `'name' is undefined on object: {"volume":"w"}`},
		{`{` + base + `,"snapshot":{"volume":"w/x","name":"s"}}`, "RW", "/container/volumes(0)/external/snapshot/volume", `volume name "w/x" may only hold letters, digits, '_', '.' and '-', and must begin with a letter or digit`},
		{`{` + base + `,"snapshot":{"volume":"w","name":"s"},"clone":{"volume":"w"}}`, "RW", "/container/volumes(0)/external", "snapshot and clone do not go together"},
		{`{` + base + `,"shared":true,"retain":{"onScaleDown":"delete"}}`, "RW", "/container/volumes(0)/external/retain/onScaleDown", "a shared volume belongs to no single instance"},
		{`{` + base + `,"retain":{"onDelete":"burn"}}`, "RW", "/container/volumes(0)/external/retain/onDelete", "error.unknown.enum.literal"},
		{`{` + base + `,"encrypt":"yes"}`, "RW", "/container/volumes(0)/external/encrypt", "error.expected.jsboolean"},
		{`{` + base + `,"encrypt":true}`, "RW", "", ""},
	} {
		_, _, err := Parse([]byte(volumeApp(c.external, c.mode)), classes)
		switch {
		case c.path == "" && err != nil:
			t.Errorf("%s: refused: %v %v", c.external, err, fault.DetailsOf(err))
		case c.path != "" && !hasDetail(err, c.path, c.text):
			t.Errorf("%s: no %q at %s; got %v %v", c.external, c.text, c.path, err, fault.DetailsOf(err))
		}
	}
}
