package lease

import "testing"

// A register may hold anything. What is taken for a claim or a node is of that register, and of a state that this program knows.
func FuzzRegisters(f *testing.F) {
	f.Add("claims/ab/x", []byte(`{"v":1,"volume":"x","state":"free"}`))
	f.Add("nodes/x", []byte(`{"v":1,"uid":"x"}`))
	f.Add("claims/ab/x", []byte(`{"v":2}`))
	f.Add("", []byte(`null`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		e := Entry{Key: key, Value: value, Version: 3}
		if cv, err := decodeClaim(e); err == nil && (claimKey(cv.VolumeUID) != key || cv.Version != 3 || cv.V != recordVersion || cv.State != Free && cv.State != Granted && cv.State != Held) {
			t.Errorf("%q %s is taken for %+v", key, value, cv)
		}
		if nv, err := decodeNode(e); err == nil && (nodeKey(nv.UID) != key || nv.V != recordVersion) {
			t.Errorf("%q %s is taken for %+v", key, value, nv)
		}
		_, _ = decodeRequest(e)
	})
}
