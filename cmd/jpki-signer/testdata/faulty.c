// A PKCS #11 module that passes everything on to SoftHSM and fails as files in FAULTY_FOLDER say:
// hang, crash: in C_Sign, once, and the file is removed; locked, final: what C_GetTokenInfo says of the PIN;
// sessions: C_OpenSession admits one. Each C_Login adds a line to the file logins.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "pkcs11go.h"

static CK_FUNCTION_LIST ours;
static CK_FUNCTION_LIST_PTR theirs;
static int opened;

static int present(const char *name, int take) {
	char path[4096];
	snprintf(path, sizeof path, "%s/%s", getenv("FAULTY_FOLDER"), name);
	return take ? unlink(path) == 0 : access(path, F_OK) == 0;
}

static CK_RV sign(CK_SESSION_HANDLE s, CK_BYTE_PTR data, CK_ULONG n, CK_BYTE_PTR sig, CK_ULONG_PTR len) {
	if (present("hang", 1)) for (;;) pause();
	if (present("crash", 1)) abort();
	return theirs->C_Sign(s, data, n, sig, len);
}

static CK_RV token_info(CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info) {
	CK_RV rv = theirs->C_GetTokenInfo(slot, info);
	if (rv == CKR_OK && present("locked", 0)) info->flags |= CKF_USER_PIN_LOCKED;
	if (rv == CKR_OK && present("final", 0)) info->flags |= CKF_USER_PIN_FINAL_TRY;
	return rv;
}

static CK_RV open_session(CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR app, CK_NOTIFY notify, CK_SESSION_HANDLE_PTR s) {
	if (present("sessions", 0) && __sync_add_and_fetch(&opened, 1) > 1) return CKR_SESSION_COUNT;
	return theirs->C_OpenSession(slot, flags, app, notify, s);
}

static CK_RV login(CK_SESSION_HANDLE s, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG n) {
	char path[4096];
	snprintf(path, sizeof path, "%s/logins", getenv("FAULTY_FOLDER"));
	FILE *f = fopen(path, "a");
	fputs("login\n", f);
	fclose(f);
	return theirs->C_Login(s, user, pin, n);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list) {
	void *lib = dlopen(getenv("FAULTY_MODULE"), RTLD_NOW | RTLD_LOCAL);
	if (!lib) return CKR_GENERAL_ERROR;
	CK_RV (*get)(CK_FUNCTION_LIST_PTR_PTR) = (CK_RV (*)(CK_FUNCTION_LIST_PTR_PTR))dlsym(lib, "C_GetFunctionList");
	CK_RV rv = get(&theirs);
	if (rv != CKR_OK) return rv;
	ours = *theirs;
	ours.C_Sign = sign;
	ours.C_GetTokenInfo = token_info;
	ours.C_OpenSession = open_session;
	ours.C_Login = login;
	*list = &ours;
	return CKR_OK;
}
