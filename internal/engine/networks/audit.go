package networks

import (
	"context"

	"github.com/orlop/orlop/internal/domain/network"
)

// Audited is what Audit answers.
type Audited struct {
	Reach    []network.Reach
	Warnings []string
}

// Audit tells what is reachable from where at this moment, and which other
// firewalls are in the way.
func (s *Service) Audit(context.Context) (Audited, error) {
	var records []network.Record
	for _, n := range s.all() {
		records = append(records, n.rec)
	}
	s.mu.Lock()
	var attachments []network.Attachment
	for _, sb := range s.sandboxes {
		attachments = append(attachments, sb.att)
	}
	s.mu.Unlock()
	reach, err := network.Audit(records, attachments)
	if err != nil {
		return Audited{}, err
	}
	return Audited{Reach: reach, Warnings: append([]string{}, s.Warnings()...)}, nil
}
