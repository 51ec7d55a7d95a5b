"""Textual part of noise/noise.pyx: the handshake patterns (specification, sections 7, 9 and 10) as data."""

cdef extern from *:
    """
    #include <assert.h>
    #include <stdint.h>
    enum { WA_T_END, WA_T_E, WA_T_S, WA_T_EE, WA_T_ES, WA_T_SE, WA_T_SS, WA_T_PSK };

    /* [pattern][message][token], by the numbers of noise/noise.pxd.  XXfallback is written from its own initiator, the
       server (section 10.2: a Bob-initiated pattern), so `es` and `se` are exchanged against the arrows of
       docs/protocol.md. */
    static const unsigned char WA_TOKENS[5][3][5] = {
        {{WA_T_END}},
        /* XX         */ {{WA_T_E}, {WA_T_E, WA_T_EE, WA_T_S, WA_T_ES}, {WA_T_S, WA_T_SE}},
        /* IK         */ {{WA_T_E, WA_T_ES, WA_T_S, WA_T_SS}, {WA_T_E, WA_T_EE, WA_T_SE}},
        /* NNpsk0     */ {{WA_T_PSK, WA_T_E}, {WA_T_E, WA_T_EE}},
        /* XXfallback */ {{WA_T_E, WA_T_EE, WA_T_S, WA_T_SE}, {WA_T_S, WA_T_ES}},
    };
    static const unsigned char WA_MESSAGES[5] = {0, 3, 2, 2, 2};
    static const char *const WA_NAMES[3][5] = {
        {"", "", "", "", ""},
        {"", "Noise_XX_25519_ChaChaPoly_SHA256", "Noise_IK_25519_ChaChaPoly_SHA256",
         "Noise_NNpsk0_25519_ChaChaPoly_SHA256", "Noise_XXfallback_25519_ChaChaPoly_SHA256"},
        {"", "Noise_XX_25519_AESGCM_SHA256", "Noise_IK_25519_AESGCM_SHA256",
         "Noise_NNpsk0_25519_AESGCM_SHA256", "Noise_XXfallback_25519_AESGCM_SHA256"},
    };
    """
    enum:
        T_END "WA_T_END"
        T_E "WA_T_E"
        T_S "WA_T_S"
        T_EE "WA_T_EE"
        T_ES "WA_T_ES"
        T_SE "WA_T_SE"
        T_SS "WA_T_SS"
        T_PSK "WA_T_PSK"
    const uint8_t TOKENS "WA_TOKENS"[5][3][5]
    const uint8_t MESSAGES "WA_MESSAGES"[5]
    const char* NAMES "WA_NAMES"[3][5]
    const uint64_t NONCE_LAST "UINT64_MAX"    # reserved for Rekey(), section 11.3
    void c_assert "assert"(bint holds) noexcept nogil

