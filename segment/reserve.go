package segment

import "os"

// reserveByWriting fills the file with zeros, for file systems that cannot
// allocate blocks in any other way.
func reserveByWriting(f *os.File, size int64) error {
	zeros := make([]byte, 256<<10)
	for size > 0 {
		n, err := f.Write(zeros[:min(int64(len(zeros)), size)])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}
