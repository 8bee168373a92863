// chat.h - conversations to text and token ids, through a model's own chat template.
//
// A template is a small program in the Jinja language: chat_template.jinja of the model's folder,
// or "chat_template" of its tokenizer_config.json. nybble runs the part of the language that such
// templates use (docs/chat.md lists it), and refuses by its name what it does not have. The text is
// that of transformers' apply_chat_template(), with one difference: strftime_now() always gives
// 26 July 2024, so that the same data gives the same tokens on every day.
//
// An open chat never changes: any number of threads may use it.
#ifndef NYB_CHAT_H_
#define NYB_CHAT_H_

#include "nybble/tokenizer.h"

typedef struct nyb_chat nyb_chat;

// Opens the chat template of a checkpoint folder.
//
//   tokenizer  the folder's, which has to outlive the chat
//
// NYB_E_UNSUPPORTED  the folder has no chat template, or it uses a statement that nybble does not
//                    have.
// NYB_E_FORMAT       the template, or a file that should hold it, breaks its format.
// NYB_E_IO, NYB_E_NOMEM  as usual. After an error *out is NULL.
NYB_API NYB_NODISCARD nyb_status nyb_chat_open(nyb_chat **out, const char *folder,
                                               const nyb_tokenizer *tokenizer, nyb_err *err);

// NULL is fine.
NYB_API void nyb_chat_close(nyb_chat *chat);

// A conversation as it is fed to a model. All of it is the caller's: nyb_conversation_clear().
typedef struct nyb_conversation {
    char *text; // what the template made of it, NUL-terminated
    size_t length;
    nyb_tokens ids;       // of the text; nothing is added to what the template wrote
    nyb_tokens assistant; // [ids.count] 1 where the assistant speaks, else 0
} nyb_conversation;

// Reads one conversation:
//
//     {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}, ...]}
//     {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", ...}, ...]}
//
// or the list of messages alone; "tools" beside the messages is handed to the template.
//
// The assistant speaks where the template says so with {% generation %}; where it does not, in
// those parts of the text that change when an assistant's message is replaced by another one,
// together with the special token behind it.
//
// NYB_E_FORMAT       the JSON is no conversation, or the template does what its values forbid.
// NYB_E_ARG          the template refuses the conversation (raise_exception); err has its words.
// NYB_E_UNSUPPORTED  the template reached a filter, test, method or function that nybble does not
//                    have; err names it.
// NYB_E_NUMERIC      the template takes more than the time or memory that it is allowed.
// After an error out is empty.
NYB_API NYB_NODISCARD nyb_status nyb_chat_read(const nyb_chat *chat, const char *json,
                                               size_t length, nyb_conversation *out, nyb_err *err);

// The conversation is empty and usable.
NYB_API void nyb_conversation_clear(nyb_conversation *conversation);

#endif // NYB_CHAT_H_
