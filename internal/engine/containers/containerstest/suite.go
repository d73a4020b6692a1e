package containerstest

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/orlop/orlop/internal/domain/container"
	"github.com/orlop/orlop/internal/engine/containers"
)

// StoreSuite holds a store against the contract of containers.Store. open
// makes an empty one; image must be usable in it.
func StoreSuite(t *testing.T, open func(t *testing.T) containers.Store, image container.ImageUse) {
	record := func(id, name string) container.Record {
		return container.Record{Schema: 1, ID: id, Name: name, Request: json.RawMessage(`{"Image":"x","New":1}`), State: json.RawMessage(`{"state":"created"}`)}
	}
	id := func(digit string) string {
		out := ""
		for range 64 {
			out += digit
		}
		return out
	}
	t.Run("a name belongs to one container", func(t *testing.T) {
		s := open(t)
		if err := s.Create(t.Context(), record(id("a"), "web"), image); err != nil {
			t.Fatal(err)
		}
		err := s.Create(t.Context(), record(id("b"), "web"), image)
		var taken container.NameTaken
		if !errors.As(err, &taken) || taken.ID != id("a") || !errdefs.IsAlreadyExists(err) {
			t.Errorf("create with a taken name: %v", err)
		}
		recs, broken, err := s.Load(t.Context())
		if err != nil || len(broken) != 0 || len(recs) != 1 {
			t.Errorf("load: %d records, %v, %v; want the first container alone", len(recs), broken, err)
		}
	})
	t.Run("a request is kept as it came", func(t *testing.T) {
		s := open(t)
		if err := s.Create(t.Context(), record(id("a"), "web"), image); err != nil {
			t.Fatal(err)
		}
		rec := record(id("a"), "web")
		rec.State = json.RawMessage(`{"state":"exited"}`)
		if err := s.Save(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		recs, _, err := s.Load(t.Context())
		if err != nil || len(recs) != 1 {
			t.Fatalf("load: %v, %v", recs, err)
		}
		if string(recs[0].Request) != `{"Image":"x","New":1}` {
			t.Errorf("request became %s", recs[0].Request)
		}
		var state struct{ State string }
		if err := json.Unmarshal(recs[0].State, &state); err != nil || state.State != "exited" {
			t.Errorf("state became %s", recs[0].State)
		}
	})
	t.Run("a renamed container frees its name", func(t *testing.T) {
		s := open(t)
		for i, name := range []string{"one", "two"} {
			if err := s.Create(t.Context(), record(id(string(rune('a'+i))), name), image); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Rename(t.Context(), id("a"), "two"); !errdefs.IsAlreadyExists(err) {
			t.Errorf("rename to a taken name: %v", err)
		}
		if err := s.Rename(t.Context(), id("a"), "three"); err != nil {
			t.Fatal(err)
		}
		if err := s.Create(t.Context(), record(id("c"), "one"), image); err != nil {
			t.Errorf("create with the freed name: %v", err)
		}
	})
	t.Run("a removal may be repeated and frees everything", func(t *testing.T) {
		s := open(t)
		if err := s.Create(t.Context(), record(id("a"), "web"), image); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.Delete(t.Context(), id("a")); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Save(t.Context(), record(id("a"), "web")); !errdefs.IsNotFound(err) {
			t.Errorf("save after a removal: %v", err)
		}
		if _, err := s.Rootfs(t.Context(), id("a")); !errdefs.IsNotFound(err) {
			t.Errorf("layers after a removal: %v", err)
		}
		if err := s.Create(t.Context(), record(id("b"), "web"), image); err != nil {
			t.Errorf("create with the freed name: %v", err)
		}
	})
}
