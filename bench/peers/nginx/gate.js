function consumer(r) {
    return r.headersIn['x-api-key'] || '';
}

function response(r) {
    r.headersOut['x-gate'] = 'passed';
}

export default { consumer, response };
