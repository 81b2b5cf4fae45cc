package vital

import "testing"

func TestPagesKnowAWrongByteAndAStalePage(t *testing.T) {
	p, err := NewPages(4, 7)
	if err != nil {
		t.Fatal(err)
	}
	for i := range p.Len() {
		if err := p.Check(i); err != nil {
			t.Errorf("untouched: %v", err)
		}
	}
	stale := append([]byte(nil), p.memory[PageSize:2*PageSize]...)
	p.Write(1)
	if err := p.Check(1); err != nil {
		t.Errorf("written again: %v", err)
	}
	copy(p.memory[PageSize:], stale)
	if p.Check(1) == nil {
		t.Error("a stale page passed")
	}
	p.memory[2*PageSize]++
	if p.Check(2) == nil {
		t.Error("a wrong byte passed")
	}
	copy(p.memory[3*PageSize:4*PageSize], p.memory[:PageSize])
	if p.Check(3) == nil {
		t.Error("another page's contents passed")
	}
}

func TestSizeReadsUnits(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "4096": 4096, "64K": 64 << 10, "200M": 200 << 20, "1G": 1 << 30} {
		var s Size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%q is %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "M", "-1", "1.5G", "12Q"} {
		var s Size
		if s.Set(text) == nil {
			t.Errorf("%q is a size: %d", text, s)
		}
	}
}
