package ocsp

import "time"

// Lasts returns when the first of the delegates ends. From then on questions that only it could answer are told tryLater.
func (r *Responder) Lasts() (end time.Time) {
	for _, i := range r.roster.Load().issuers {
		for _, s := range i.seats {
			if at := s.Certificate.NotAfter; end.IsZero() || at.Before(end) {
				end = at
			}
		}
	}
	return end
}
