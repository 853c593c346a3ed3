function body(r, data, flags) {
    const seen = data.length;
    r.sendBuffer(data, flags);
}

export default { body };
