// A second reader of status snapshots, made from docs/snapshot-format.md and of nothing but the Java platform.
//
// usage: java Reader.java ISSUER.crt SNAPSHOT [DELTA...] < serials
//
// Prints the state of each serial (hexadecimal, one a line). It checks signature, hash, lengths and the deltas' order, but not
// times, which a test's files leave behind.

import java.io.*;
import java.nio.*;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.util.*;

public class Reader {
    static final long G = 0x9E3779B97F4A7C15L;
    static final String[] STATES = {"good", "suspended", "revoked"};

    static ByteBuffer le(byte[] b) { return ByteBuffer.wrap(b).order(ByteOrder.LITTLE_ENDIAN); }

    static byte[] sha256(byte[]... parts) throws Exception {
        MessageDigest d = MessageDigest.getInstance("SHA-256");
        for (byte[] p : parts) d.update(p);
        return d.digest();
    }

    static void must(boolean holds, String what) {
        if (!holds) throw new IllegalArgumentException(what);
    }

    /** Checks a file and returns its body. */
    static byte[] unseal(byte[] f, String magic, X509Certificate issuer) throws Exception {
        must(f.length >= 170 && new String(f, 0, 8, "US-ASCII").equals(magic), "magic");
        ByteBuffer h = le(f);
        must(h.getShort(8) == 1, "version");
        byte[] key = issuer.getPublicKey().getEncoded(); // SubjectPublicKeyInfo: the BIT STRING is what ends it
        int at = key.length - (key[key.length - 65] == 4 ? 65 : 97); // an uncompressed point, of P-256 or P-384
        must(Arrays.equals(sha256(Arrays.copyOfRange(key, at, key.length)), Arrays.copyOfRange(f, 16, 48)), "issuer");
        int sig = h.getShort(168) & 0xFFFF, length = h.getInt(132);
        must(f.length == 170 + sig + length, "length");
        Signature s = Signature.getInstance(key.length - at == 65 ? "SHA256withECDSA" : "SHA384withECDSA");
        s.initVerify(issuer.getPublicKey());
        s.update(f, 0, 168);
        must(s.verify(f, 170, sig), "signature");
        byte[] body = Arrays.copyOfRange(f, 170 + sig, f.length);
        must(Arrays.equals(sha256(body), Arrays.copyOfRange(f, 136, 168)), "hash");
        return body;
    }

    static long upper(long x, long n) { // of the product of x, unsigned, and n, which is small
        return Math.multiplyHigh(x, n) + (x < 0 ? n : 0);
    }

    static long mix(long z) {
        z = (z ^ z >>> 30) * 0xBF58476D1CE4E5B9L;
        z = (z ^ z >>> 27) * 0x94D049BB133111EBL;
        return z ^ z >>> 31;
    }

    /** The key's value in a filter of some columns, and its fingerprint. */
    static long[] ask(byte[] filters, int from, int size, int columns, long a, long b, int filter, int seed) {
        long x = mix(a ^ (256L * filter + seed) * G) + b;
        int start = size > 32 ? (int) upper(mix(x + G), size - 31) : 0;
        ByteBuffer row = le(new byte[32]);
        for (int i = 0; i < 4; i++) row.putLong(8 * i, mix(x + (2 + i) * G));
        long value = 0;
        for (int c = 0; c < columns; c++) {
            int ones = 0;
            for (int i = 0; i < 32 && start + i < size; i++)
                ones += Integer.bitCount(filters[from + c * size + start + i] & row.get(i) & 0xFF);
            value |= (long) (ones & 1) << c;
        }
        return new long[] {value, mix(x + 6 * G) & (1L << columns) - 1};
    }

    final byte[] salt, hash, body;
    final int blocks;
    final int[] starts;
    final Map<String, Integer> changes = new HashMap<>();
    final long base;
    long sequence;

    Reader(byte[] file, X509Certificate issuer) throws Exception {
        body = unseal(file, "JPKISNAP", issuer);
        ByteBuffer h = le(file);
        salt = Arrays.copyOfRange(file, 88, 104);
        hash = Arrays.copyOf(sha256(salt, Arrays.copyOfRange(file, 16, 48)), 16);
        blocks = h.getInt(128);
        base = sequence = h.getLong(48);
        starts = new int[blocks + 1];
        starts[0] = 14 * blocks;
        for (int i = 0; i < blocks; i++) starts[i + 1] = starts[i] + length(14 * i) + length(14 * i + 7);
        must(starts[blocks] == body.length, "filters");
    }

    int u16(int at) { return le(body).getShort(at) & 0xFFFF; }
    int length(int head) { return body[head] * u16(head + 3) + u16(head + 5); }

    void apply(byte[] delta, X509Certificate issuer) throws Exception {
        ByteBuffer b = le(unseal(delta, "JPKIDELT", issuer));
        must(Arrays.equals(salt, Arrays.copyOfRange(delta, 88, 104)), "salt");
        must(b.getLong() == base && b.getLong() == sequence && le(delta).getLong(48) > sequence, "order");
        int[] counts = {b.getInt(), b.getInt(), b.getInt()};
        for (int state = 0; state < 3; state++)
            for (int i = 0; i < counts[state]; i++) {
                byte[] change = new byte[12];
                b.get(change);
                changes.put(HexFormat.of().formatHex(change), state);
            }
        must(!b.hasRemaining(), "changes");
        sequence = le(delta).getLong(48);
    }

    boolean member(int head, int from, long a, long b, int filter) {
        int columns = body[head], size0 = u16(head + 3), size1 = u16(head + 5);
        if (columns > 0) {
            long[] v = ask(body, from, size0, columns, a, b, filter, body[head + 1] & 0xFF);
            if (v[0] != v[1]) return false;
        }
        if (size1 > 0) return ask(body, from + columns * size0, size1, 1, a, b, filter + 1, body[head + 2] & 0xFF)[0] == 1;
        return columns > 0 || body[head + 2] == 1;
    }

    String state(String serial) throws Exception {
        byte[] k = sha256(hash, HexFormat.of().parseHex(serial));
        Integer changed = changes.get(HexFormat.of().formatHex(k, 0, 12));
        if (changed != null) return STATES[changed];
        long a = le(k).getLong(0), b = le(k).getLong(8);
        int block = (int) upper(a, blocks), head = 14 * block;
        if (!member(head, starts[block], a, b, 0)) return "good";
        return member(head + 7, starts[block] + length(head), a, b, 2) ? "suspended" : "revoked";
    }

    public static void main(String[] args) throws Exception {
        X509Certificate issuer;
        try (InputStream in = new FileInputStream(args[0])) {
            issuer = (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(in);
        }
        Reader r = new Reader(Files.readAllBytes(Path.of(args[1])), issuer);
        for (int i = 2; i < args.length; i++) r.apply(Files.readAllBytes(Path.of(args[i])), issuer);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        StringBuilder out = new StringBuilder();
        for (String line; (line = in.readLine()) != null; ) out.append(r.state(line)).append('\n');
        System.out.print(out);
    }
}
