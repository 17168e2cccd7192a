package acme

import casapi "github.com/smallstep/certificates/cas/apiv1"

// Service is the signing service behind the embedded authority.
func Service(e *Enrolment) casapi.CertificateAuthorityService { return service{e} }
