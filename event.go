package jpki

import (
	"log/slog"
	"time"
)

// An EventType is a kind of change in the resident register (異動).
type EventType string

// The events; ca/rules.go says what each does to which certificates.
const (
	Registered        EventType = "registered"         // a person enters the register
	AddressChanged    EventType = "address-changed"    // 転居・転入
	NameChanged       EventType = "name-changed"       // 氏名の変更
	BirthDateAmended  EventType = "birth-date-changed" // 生年月日の訂正
	SexAmended        EventType = "sex-changed"        // 性別の変更
	AddressRenamed    EventType = "address-renamed"    // the place was renamed or merged; nobody moved
	Death             EventType = "died"               // 死亡
	Departure         EventType = "left-register"      // 消除: left without keeping the card, lost nationality or residence
	GuardianshipBegan EventType = "guardianship-began" // 成年後見開始
	GuardianshipEnded EventType = "guardianship-ended"
	StayExtended      EventType = "stay-extended"    // a foreign resident's period of stay changed
	ProtectionBegan   EventType = "protection-began" // 支援措置: nobody shall find this person by the register
	ProtectionEnded   EventType = "protection-ended"
)

// EventTypes lists all event types.
var EventTypes = []EventType{Registered, AddressChanged, NameChanged, BirthDateAmended, SexAmended, AddressRenamed, Death, Departure, GuardianshipBegan, GuardianshipEnded, StayExtended, ProtectionBegan, ProtectionEnded}

// An Event is one entry of the resident register's feed.
type Event struct {
	ID           string      `json:"id"`     // the register's own, unique for ever
	Holder       string      `json:"holder"` // opaque; never a My Number
	Type         EventType   `json:"type"`
	EffectiveAt  time.Time   `json:"effective_at"`           // an event of the future waits until then
	Municipality string      `json:"municipality,omitempty"` // code of the municipality after the event, where it changes
	Attributes   *Attributes `json:"attributes,omitempty"`   // all four after the event, where they change
	StayUntil    *time.Time  `json:"stay_until,omitempty"`   // end of a foreign resident's period of stay
}

// LogValue keeps the attributes out of logs.
func (e Event) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", e.ID), slog.String("type", string(e.Type)))
}
