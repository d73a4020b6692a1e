package containers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
)

// Shutdown ends the service. With stopAll every running container is stopped
// first, by its own signal and timeout, those that others depend on last;
// without it they go on, to be adopted by the next life of the daemon. Restart
// policies keep still from now on. ctx bounds the wait; what does not stop in
// time is left running.
func (s *Service) Shutdown(ctx context.Context, stopAll bool) error {
	s.stopping.Store(true)
	var errs []error
	if stopAll {
		levels := s.byDependency(s.objects())
		slices.Reverse(levels)
		for _, level := range levels {
			errs = append(errs, s.stopLevel(ctx, level)...)
		}
	}
	s.leaveOnce.Do(func() { close(s.leaving) })
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("work for containers goes on: %w", ctx.Err()))
	}
	return errors.Join(errs...)
}

// stopLevel stops containers that do not depend on each other.
func (s *Service) stopLevel(ctx context.Context, level []*object) []error {
	var (
		mu   sync.Mutex
		errs []error
		all  sync.WaitGroup
	)
	for _, o := range level {
		if !o.snapshot().state.WireRunning() && !o.snapshot().state.Busy() {
			continue
		}
		all.Go(func() {
			if err := s.stop(ctx, o, StopOptions{}); err != nil && !errdefs.IsNotModified(err) {
				mu.Lock()
				errs = append(errs, fmt.Errorf("stop container %s: %w", o.snapshot().name, err))
				mu.Unlock()
			}
		})
	}
	stopped := make(chan struct{})
	go func() {
		all.Wait()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		mu.Lock()
		defer mu.Unlock()
		return append(slices.Clone(errs), fmt.Errorf("stop containers: %w", ctx.Err()))
	}
	return errs
}

// byDependency orders containers into levels: those of a level depend only on
// those of earlier ones (shared namespaces, links, volumes-from). A circle, in
// which nobody could start first, is a level of its own.
func (s *Service) byDependency(objects []*object) [][]*object {
	in := map[string]*object{}
	for _, o := range objects {
		in[o.id] = o
	}
	needs := map[string][]string{}
	for id, o := range in {
		for _, dep := range s.dependencies(o.snapshot()) {
			if in[dep] != nil && dep != id {
				needs[id] = append(needs[id], dep)
			}
		}
	}
	var levels [][]*object
	for len(in) > 0 {
		var level []*object
		for id, o := range in {
			free := !slices.ContainsFunc(needs[id], func(dep string) bool { return in[dep] != nil })
			if free {
				level = append(level, o)
			}
		}
		if len(level) == 0 {
			for _, o := range in {
				level = append(level, o)
			}
		}
		slices.SortFunc(level, func(a, b *object) int {
			return a.snapshot().saved.Created.Compare(b.snapshot().saved.Created)
		})
		for _, o := range level {
			delete(in, o.id)
		}
		levels = append(levels, level)
	}
	return levels
}

// dependencies lists the ids of the containers that one needs to run.
func (s *Service) dependencies(snap *snapshot) []string {
	host := snap.saved.HostConfig
	refs := []string{host.PidMode.Container(), host.IpcMode.Container(), host.NetworkMode.ConnectedContainer()}
	for _, raw := range host.Links {
		if ref, _, err := parseLink(raw); err == nil {
			refs = append(refs, ref)
		}
	}
	var ids []string
	for _, ref := range refs {
		if ref == "" {
			continue
		}
		if o, err := s.find(ref); err == nil {
			ids = append(ids, o.id)
		}
	}
	return ids
}
