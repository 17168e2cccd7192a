import java.io.FileInputStream;
import java.io.IOException;
import java.net.URI;
import java.security.cert.CertPathValidator;
import java.security.cert.CertPathValidatorException;
import java.security.cert.CertificateFactory;
import java.security.cert.CertificateRevokedException;
import java.security.cert.PKIXParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.PKIXRevocationChecker.Option;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.List;
import java.util.Set;

/**
 * Validates a certificate as the Java platform does, with its own PKIX path validation and nothing of ours:
 * java -Dcom.sun.security.enableCRLDP=true Validate.java TRUST CERTIFICATE METHOD...
 * A METHOD is the URL of an OCSP responder, "ocsp" for the one that the certificate names, or "crl" for the list that it
 * names; none falls back on another. One line a METHOD: good, revoked and why, or refused and why.
 */
public class Validate {
    private static final CertificateFactory X509 = factory();

    public static void main(String[] args) throws Exception {
        X509Certificate trust = read(args[0]), certificate = read(args[1]);
        for (String method : List.of(args).subList(2, args.length)) {
            System.out.println(method + ": " + validate(trust, certificate, method));
        }
    }

    private static String validate(X509Certificate trust, X509Certificate certificate, String method) throws Exception {
        CertPathValidator validator = CertPathValidator.getInstance("PKIX");
        var checker = (PKIXRevocationChecker) validator.getRevocationChecker();
        if (method.equals("crl")) {
            checker.setOptions(Set.of(Option.PREFER_CRLS, Option.NO_FALLBACK));
        } else {
            checker.setOptions(Set.of(Option.NO_FALLBACK));
            if (!method.equals("ocsp")) {
                checker.setOcspResponder(URI.create(method));
            }
        }
        var parameters = new PKIXParameters(Set.of(new TrustAnchor(trust, null)));
        parameters.addCertPathChecker(checker);
        // The critical policy extension names a practice statement. Java refuses that unless the caller says that people read it.
        parameters.setPolicyQualifiersRejected(false);
        try {
            validator.validate(X509.generateCertPath(List.of(certificate)), parameters);
            return "good";
        } catch (CertPathValidatorException e) {
            if (e.getCause() instanceof CertificateRevokedException revoked) {
                return "revoked " + revoked.getRevocationReason();
            }
            return "refused " + e.getReason() + " " + e.getMessage();
        }
    }

    private static X509Certificate read(String path) throws Exception {
        try (var in = new FileInputStream(path)) {
            return (X509Certificate) X509.generateCertificate(in);
        } catch (IOException e) {
            throw new IOException(path, e);
        }
    }

    private static CertificateFactory factory() {
        try {
            return CertificateFactory.getInstance("X.509");
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }
}
