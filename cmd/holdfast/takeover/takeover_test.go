package takeover

import (
	"testing"

	"github.com/holdfast-io/holdfast/framework/api/client"
)

func TestAppsOf(t *testing.T) {
	const volumes = `"container":{"volumes":[{"external":{"name":"pg","provider":"dvdi","options":{"dvdi/driver":"rexray"}}}]}`
	for text, want := range map[string][]string{
		`{"id":"/","apps":[{"id":"/b","dependencies":["/g"]}],"groups":[{"id":"/g","apps":[{"id":"/g/a"}],"groups":[{"id":"/g/h","apps":[{"id":"/g/h/c"}]}]}]}`: {"/g/a", "/g/h/c", "/b"},
		`{"apps":[{"id":"/x","version":"2015-01-01T00:00:00.000Z"}]}`:                                                                                           {"/x"},
		`[{"id":"x","dependencies":["/y"]},{"id":"/y","dependencies":["/x"]}]`:                                                                                  {"/y", "/x"},
		`{"id":"/one","cmd":"sleep 1",` + volumes + `}`:                                                                                                         {"/one"},
		`{"id":"/empty","apps":[],"groups":[]}`:                                                                                                                 {},
	} {
		apps, err := appsOf([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		ordered := inOrder(apps)
		if len(ordered) != len(want) {
			t.Fatalf("%s: %d apps", text, len(ordered))
		}
		for i, a := range ordered {
			if a.ID != want[i] {
				t.Errorf("%s: app %d is %s, want %s", text, i, a.ID, want[i])
			}
		}
	}
	for _, text := range []string{``, `{`, `[1]`, `{"apps":[{}]}`, `{"apps":{}}`} {
		if apps, err := appsOf([]byte(text)); err == nil {
			t.Errorf("%q gives %d apps", text, len(apps))
		}
	}
}

func TestMoves(t *testing.T) {
	apps, err := appsOf([]byte(`[
		{"id":"/db","instances":0,"container":{"volumes":[{"external":{"name":"pg","provider":"dvdi","options":{"dvdi/driver":"rexray"}}},{"hostPath":"/x"}]}},
		{"id":"/many","instances":2,"container":{"volumes":[{"external":{"name":"m","provider":"dvdi","options":{"dvdi/driver":"rexray"}}},{"external":{"name":"s","shared":true,"options":{"dvdi/driver":"rexray"}}}]}},
		{"id":"/twin","container":{"volumes":[{"external":{"name":"pg","options":{"dvdi/driver":"rexray"}}}]}},
		{"id":"/csi","container":{"volumes":[{"external":{"name":"c","provider":"csi","options":{"pluginName":"ebs","capability":{"accessMode":"SINGLE_NODE_WRITER"}}}}]}}]`))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]client.Volume{"rexray/m": {App: "/many"}, "rexray/m-1": {App: "/other"}}
	taken := map[string]string{}
	want := map[string][]string{
		"/db": {"rexray/pg adopt"}, "/many": {"rexray/m keep", "rexray/m-1 conflict", "rexray/s adopt"}, "/twin": {"rexray/pg conflict"}, "/csi": {"csi/ebs/c adopt"},
	}
	for _, a := range apps {
		var got []string
		for _, m := range a.moves(known, taken) {
			got = append(got, m.Driver+"/"+m.Name+" "+m.Action)
		}
		if len(got) != len(want[a.ID]) {
			t.Fatalf("%s: %v, want %v", a.ID, got, want[a.ID])
		}
		for i := range got {
			if got[i] != want[a.ID][i] {
				t.Errorf("%s: %s, want %s", a.ID, got[i], want[a.ID][i])
			}
		}
	}
}

func TestSDKNames(t *testing.T) {
	for _, c := range []struct {
		o    sdkVolumes
		want string
	}{
		{sdkVolumes{service: "/prod/cassandra", pod: "node", rule: "portworx", count: 3}, "prod__cassandra-node-{ordinal}"},
		{sdkVolumes{volume: "CassandraVolume", rule: "portworx", count: 3}, "CassandraVolume-{ordinal}"},
		{sdkVolumes{service: "hdfs", pod: "data", rule: "netapp", count: 1}, "hdfs_data_{ordinal}"},
		{sdkVolumes{service: "hdfs", pod: "data", path: "hdfs-data", rule: "generic", count: 1}, "hdfs_data-hdfs-data_{ordinal}"},
		{sdkVolumes{service: "hdfs", rule: "generic", count: 1}, ""},
		{sdkVolumes{volume: "x", rule: "other", count: 1}, ""},
		{sdkVolumes{volume: "x", rule: "netapp"}, ""},
		{sdkVolumes{volume: "a b", rule: "netapp", count: 1}, ""},
	} {
		got, err := c.o.pattern()
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: %q %v", c.o, got, err)
		}
	}
}
