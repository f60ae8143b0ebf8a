package image

import "testing"

// A head that is hostile is neither taken for a file system by chance of its length, nor read beyond its end, and its figures stay figures.
func FuzzHead(f *testing.F) {
	f.Add([]byte("XFSB"))
	ext4 := make([]byte, headSize)
	ext4[1024+0x38], ext4[1024+0x39], ext4[1024+0x18] = 0x53, 0xef, 255
	f.Add(ext4)
	f.Fuzz(func(t *testing.T, raw []byte) {
		head := make([]byte, headSize)
		copy(head, raw)
		for _, fs := range kinds {
			if id, ok := fs.identify(head); ok && len(id) != 36 {
				t.Errorf("%s: UUID %q", fs.Name, id)
			}
			if most := ext4Most(head); most < 0 {
				t.Errorf("most %d", most)
			}
			if c := fs.counts(head); c.Size < 0 || c.Free < 0 {
				t.Errorf("%s: %+v", fs.Name, c)
			}
		}
	})
}
