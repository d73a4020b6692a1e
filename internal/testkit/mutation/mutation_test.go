package mutation

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

type tree struct {
	Name  string
	Count *uint16
	Sub   []tree
	Keys  map[string]int64
	Flag  bool
	Next  *tree
}

func TestTheSameBytesMakeTheSameChangesAndReachEveryField(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, r.IntN(100))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		shared := &tree{Sub: []tree{{Name: "kept"}}}
		a, b := *shared, *shared
		Apply(&a, data, []string{"word"})
		Apply(&b, data, []string{"word"})
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("seed %d: %+v and %+v", seed, a, b)
		}
		if len(shared.Sub) != 1 || shared.Sub[0].Name != "kept" {
			t.Fatalf("seed %d changed what it was copied from: %+v", seed, shared)
		}
		v := reflect.ValueOf(a)
		for i := range v.NumField() {
			seen[v.Type().Field(i).Name] = seen[v.Type().Field(i).Name] || !v.Field(i).IsZero()
		}
	}
	if len(seen) != 6 {
		t.Fatal(seen)
	}
	for name, changed := range seen {
		if !changed {
			t.Errorf("%s was never changed", name)
		}
	}
}
