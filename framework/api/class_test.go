package api_test

import (
	"testing"

	"github.com/holdfast-io/holdfast/framework/api"
	"github.com/holdfast-io/holdfast/internal/volume"
)

func TestReadClasses(t *testing.T) {
	for _, text := range []string{"- name: fast\n  driver: pool\n  size: 5\n", `{"classes":[{"name":"fast","driver":"pool","size":"5GiB"}]}`} {
		list, err := api.ReadClasses([]byte(text))
		if err != nil || len(list) != 1 || list[0].Name != "fast" || list[0].Size != 5*volume.GiB {
			t.Errorf("%s: %+v %v", text, list, err)
		}
	}
	for _, text := range []string{"", "fast", "- name: fast\n", "- name: fast\n  driver: pool\n  polcy: lease\n", "- driver: pool\n", "{", "- name: f\n  driver: p\n  snapshotSchedule: daily\n", "- name: f\n  driver: csi/p\n  encrypt: true\n"} {
		if list, err := api.ReadClasses([]byte(text)); err == nil {
			t.Errorf("%q is read as %+v", text, list)
		}
	}
}
