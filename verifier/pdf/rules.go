package pdf

// A Level is a degree of change, from harmless to content.
type Level int

// The levels. Each includes those before it.
const (
	Unchanged   Level = iota
	LTA               // validation data, document time-stamps, metadata
	Forms             // form fields were filled in, or signed
	Annotations       // annotations were added, changed or removed; appearances of fields were changed by themselves
	Other             // anything else: what the pages show may be another
)

// String names the level.
func (l Level) String() string {
	return [...]string{"unchanged", "lta-updates", "form-filling", "annotations", "other"}[min(max(l, 0), Other)]
}

// A context is a part of the document in which rules hold. In none, every difference is of the level of the rule that led
// there.
type context int

const (
	leaf      context = iota
	same              // a reference back: it must stay the same reference
	ignored           // says nothing of the document
	trailers          // the trailer dictionary
	catalogs          // the document catalog
	pages             // a node of the page tree
	pageLists         // Kids of one
	annots            // the annotations of a page
	forms             // the interactive form
	fieldTops         // its Fields
	fields            // a form field or widget that is no signature
	sigFields         // one that is
	fieldKids         // Kids of a field
	resources         // resources of the form, each kind a dictionary
	grown             // a dictionary that may get more entries; those there stay
)

// anyKey stands in a rule for all keys without a row.
const anyKey name = "*"

// A rule says what a difference under a key of a dictionary means.
type rule struct {
	in    context
	key   name
	as    context // what is there: compared by the rules of that context
	level Level   // of a difference, or of an entry that comes or goes
	added Level   // of an entry that comes, if that is another level; zero: the same
}

// rules is what may change after a signature. What has no row is content.
var rules = []rule{
	{in: trailers, key: "Root", as: catalogs, level: Other},
	{in: trailers, key: "Encrypt", level: Other},
	{in: trailers, key: "Info", level: LTA}, // document information: shown on no page
	{in: trailers, key: anyKey, as: ignored},

	{in: catalogs, key: "Pages", as: pages, level: Other},
	{in: catalogs, key: "AcroForm", as: forms, level: Other, added: LTA}, // what it has is judged by itself
	{in: catalogs, key: "DSS", level: LTA},
	{in: catalogs, key: "Extensions", level: LTA},
	{in: catalogs, key: "Version", level: LTA},
	{in: catalogs, key: "Metadata", level: LTA},
	{in: catalogs, key: "Perms", as: grown, level: Other, added: Forms},
	{in: catalogs, key: anyKey, level: Other},

	{in: pages, key: "Kids", as: pageLists, level: Other},
	{in: pages, key: "Parent", as: same, level: Other},
	{in: pages, key: "Annots", as: annots, level: Other, added: LTA}, // likewise
	{in: pages, key: anyKey, level: Other},

	{in: forms, key: "Fields", as: fieldTops, level: Other, added: LTA},
	{in: forms, key: "SigFlags", level: LTA},
	{in: forms, key: "DR", as: resources, level: Other, added: Forms},
	{in: forms, key: "DA", level: Other, added: Forms},
	// NeedAppearances makes readers draw fields anew, which may look otherwise than what was signed: content.
	{in: forms, key: anyKey, level: Other},

	{in: fields, key: "V", level: Forms},
	{in: fields, key: "RV", level: Forms},
	{in: fields, key: "I", level: Forms},
	{in: fields, key: "AP", level: Forms}, // Annotations, if the value stays the same: see differ.field
	{in: fields, key: "AS", level: Forms},
	{in: fields, key: "M", level: LTA},
	{in: fields, key: "MK", level: Annotations},
	{in: fields, key: "Kids", as: fieldKids, level: Other},
	{in: fields, key: "Parent", as: same, level: Other},
	{in: fields, key: "P", as: same, level: Other},
	{in: fields, key: anyKey, level: Other},

	// A signature field is filled in once. See differ.field: AP, Lock and SV only together with V.
	{in: sigFields, key: "V", level: Other, added: Forms},
	{in: sigFields, key: "AP", level: Forms},
	{in: sigFields, key: "AS", level: Forms},
	{in: sigFields, key: "MK", level: Forms},
	{in: sigFields, key: "M", level: LTA},
	{in: sigFields, key: "Lock", level: Other, added: Forms},
	{in: sigFields, key: "Kids", as: fieldKids, level: Other},
	{in: sigFields, key: "Parent", as: same, level: Other},
	{in: sigFields, key: "P", as: same, level: Other},
	{in: sigFields, key: anyKey, level: Other},

	{in: resources, key: "XObject", level: Forms}, // fields are drawn with fonts from here, never with these
	{in: resources, key: anyKey, as: grown, level: Other, added: Forms},
	{in: grown, key: anyKey, level: Other, added: Forms},
}

// ruleFor returns the row for a key.
func ruleFor(in context, key name) rule {
	for _, r := range rules {
		if r.in == in && (r.key == key || r.key == anyKey) {
			return r
		}
	}
	return rule{level: Other}
}
