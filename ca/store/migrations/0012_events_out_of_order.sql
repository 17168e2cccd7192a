-- +goose Up

-- The problem for which an event, when its time had come, could not take effect; applied_at is then when that was found.
ALTER TABLE resident_event ADD COLUMN refused TEXT;
CREATE INDEX resident_event_holder ON resident_event (holder, effective_at);
