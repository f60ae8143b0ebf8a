package volume

import (
	"maps"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/fault"
)

func TestCheckName(t *testing.T) {
	for _, good := range []string{"db", "db-1", "A.b_c", "0", strings.Repeat("x", MaxName)} {
		if err := CheckName(good); err != nil {
			t.Errorf("CheckName(%q) = %v, want nil", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a/b", "../x", "a b", "a\x00b", "a\nb", "-x", "é", strings.Repeat("x", 300), "a\xff"} {
		if err := CheckName(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("CheckName(%q) = %v, want invalid", bad, err)
		}
	}
}

func TestCheckDriver(t *testing.T) {
	for _, good := range []string{"pool", "rexray", "csi/hostpath.csi.k8s.io", "vieux/sshfs", "vieux/sshfs:latest", "rexray:latest"} {
		if err := CheckDriver(good); err != nil {
			t.Errorf("CheckDriver(%q) = %v", good, err)
		}
	}
	for _, bad := range []string{"", "/x", "a//b", "../a", "a/../b", "a/b/c", "a b", "a\n"} {
		if err := CheckDriver(bad); err == nil {
			t.Errorf("CheckDriver(%q) = nil", bad)
		}
	}
}

func TestNameFor(t *testing.T) {
	for _, c := range []struct {
		pattern string
		n       int
		shared  bool
		want    string
	}{{"db", 0, false, "db"}, {"db", 3, false, "db-3"}, {"db", 3, true, "db"}, {"d{ordinal}b", 0, false, "d0b"}} {
		if got := NameFor(c.pattern, c.n, c.shared); got != c.want {
			t.Errorf("NameFor(%q, %d, %v) = %q, want %q", c.pattern, c.n, c.shared, got, c.want)
		}
	}
}

func TestPatternsClash(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"db", "db", true}, {"db", "db-1", true}, {"db-1", "db", true}, {"db", "db-0", false}, {"db", "db-x", false}, {"db", "dbs", false},
		{"db", "db-01", false}, {"db-{ordinal}", "db", true}, {"db-{ordinal}", "db-0", true}, {"a{ordinal}", "b{ordinal}", false}, {"db-1", "db-2", false},
	} {
		if got := PatternsClash(c.a, c.b); got != c.want {
			t.Errorf("PatternsClash(%q, %q) = %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]Bytes{"5": 5 * GiB, "512M": 512 * MiB, "1.5g": GiB + 512*MiB, "10 KiB": 10 * KiB, "7B": 7, "2T": 2 * TiB} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "-1", "x", "5 parsecs", "1e400", "NaN", "99999999999T"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %v, want an error", in, got)
		}
	}
}

func TestOptionsRoundTrip(t *testing.T) {
	user := map[string]string{"size": "5", "note": "a=b,c"}
	want := Grant{VolumeUID: "u", Epoch: 7, Nonce: "n", Task: "t", MustExist: true}
	g, given, rest, err := SplitOptions(want.Encode(user))
	if err != nil || !given || g != want || !maps.Equal(rest, user) {
		t.Fatalf("got %+v %v %v %v", g, given, rest, err)
	}
	if _, given, _, err := SplitOptions(user); given || err != nil {
		t.Fatalf("options of a user alone: given %v, %v", given, err)
	}
	for _, bad := range []map[string]string{{"holdfast.epoch": "1"}, {"holdfast.epoch": "x"}, {"holdfast.new": "1"}, {"holdfast.must-exist": "maybe"}} {
		if _, _, _, err := SplitOptions(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("SplitOptions(%v) = %v, want invalid", bad, err)
		}
	}
	for _, bad := range []map[string]string{{"holdfast.epoch": "1"}, {"Holdfast.X": "1"}, {"": "1"}, {"a b": "1"}, {"a": "x\ny"}} {
		if err := CheckOptions(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("CheckOptions(%v) = %v, want invalid", bad, err)
		}
	}
}
